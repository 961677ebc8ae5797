import { ConnectionError, isPassing } from "./errors.js";
import { backoffMs, sleep, type Transport } from "./transport.js";
import type { Message } from "./types.js";

export interface StreamOptions {
  /** Most messages that are sent and not settled, 1 to 1000; default 100. */
  maxInFlight?: number | undefined;
  /** How long a lease lasts, in seconds; by default as the subscription says. Streams do not extend leases. */
  ackDeadlineSeconds?: number | undefined;
  /** Acked once the connection took it: at most once. */
  autoAck?: boolean | undefined;
  consumerId?: string | undefined;
  /** Ends the stream; the loop then throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The server gives a sign of life each 15 seconds: a connection that is silent for so many ms is dead. */
const SILENCE_MS = 40_000;

/** Messages as they come; comes back unless it is refused. */
export async function* stream<Payload>(
  transport: Transport, path: string, options: StreamOptions,
): AsyncGenerator<Message<Payload>, void, undefined> {
  const { signal } = options;
  const { maxInFlight: max_in_flight, ackDeadlineSeconds: ack_deadline_seconds, autoAck: auto_ack } = options;
  const query = { max_in_flight, ack_deadline_seconds, auto_ack, consumer_id: options.consumerId };
  for (let failures = 1; ; failures++) {
    let failure: unknown;
    try {
      for await (const [event, data] of events(await transport.open(path, { query, signal }), signal)) {
        failures = 0;
        // why the server ends it, such as a token that is over
        if (event === "error") break;
        if (event === "message") yield JSON.parse(data) as Message<Payload>;
      }
    } catch (error) {
      if (!isPassing(error)) throw error;
      failure = error;
    }
    await sleep(backoffMs(Math.max(1, failures), failure), signal);
  }
}

/** The events of an answer, until it ends or says nothing for too long. Hangs up when it is left. */
async function* events(body: ReadableStream<Uint8Array>, signal: AbortSignal | undefined) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const hangUp = () => void reader.cancel().catch(() => {});
  signal?.addEventListener("abort", hangUp, { once: true });
  try {
    for (let text = ""; ; ) {
      const silence = setTimeout(hangUp, SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      signal?.throwIfAborted();
      if (done) return;
      const blocks = (text + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        signal?.throwIfAborted();
        const field = (name: string) => new RegExp(`^${name}: ?(.*)`, "m").exec(block)?.[1] ?? "";
        yield [field("event"), field("data")] as const;
      }
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ConnectionError("the stream broke", { cause: error });
  } finally {
    signal?.removeEventListener("abort", hangUp);
    hangUp();
  }
}
