// Type-checked against the types that openapi-typescript makes of /openapi.json.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema";

const api = createClient<paths>({ baseUrl: "http://localhost:8000" });

export async function work(): Promise<string> {
  await api.POST("/topics", { body: { id: "user-events" } });
  await api.POST("/subscriptions", {
    // nothing but the ids is required
    body: { id: "mail", topic_id: "user-events", filter: { country: ["BR"] } },
  });
  const params = { path: { id: "mail" } };
  const published = await api.POST("/topics/{id}/publish", {
    params: { path: { id: "user-events" } },
    body: { messages: [{ payload: { country: "BR", nested: { list: [1, null] } } }] },
  });
  const ids: string[] = published.data?.message_ids ?? [];

  const pulled = await api.POST("/subscriptions/{id}/pull", { params, body: { consumer_id: "me" } });
  for (const message of pulled.data?.messages ?? []) {
    const country: unknown = message.payload["country"];
    const region: string | undefined = message.attributes["region"];
    const key: string | null = message.ordering_key;
    const settled = await api.POST("/subscriptions/{id}/settle", {
      params,
      body: { acks: [message.receipt!] },
    });
    console.log(country, region, key, settled.data?.results[0]?.status);
  }

  const dead = await api.GET("/subscriptions/{id}/dlq", { params });
  const reasons: string[] = (dead.data?.data ?? []).map((letter) => letter.reason);

  const { error } = await api.GET("/topics/{id}", { params: { path: { id: "nope" } } });
  return [...ids, ...reasons, error === undefined ? "" : told(error)].join(" ");
}

function told(error: components["schemas"]["Error"]): string {
  if (typeof error.detail === "string") {
    return error.detail;
  }
  return error.detail.map((fault) => `${fault.loc.join(".")}: ${fault.msg}`).join("; ");
}

// @ts-expect-error a topic needs an id
export const noTopic: components["schemas"]["CreateTopic"] = {};
// @ts-expect-error an attribute is a string
export const noMessage: components["schemas"]["OutgoingMessage"] = { payload: {}, attributes: { n: 1 } };
