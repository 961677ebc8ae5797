import { ApiError, ConnectionError } from "./errors.js";

/** How a client shows who it is: with an id and a secret it gets tokens, and new ones ahead of their end. */
export type Credentials =
  | Login
  | { apiKey: string }
  | { token: string | (() => string | Promise<string>) };

interface Login {
  clientId: string;
  clientSecret: string;
  /** Fewer scopes than the client has. */
  scope?: string | undefined;
}

/** Of each call. */
export interface RequestOptions {
  /** Gives the call up; it then throws the signal's reason. */
  signal?: AbortSignal | undefined;
  /** How long one try may take, in ms. */
  timeoutMs?: number | undefined;
  /** For how long to try again after the first try, in ms; 0 for never. */
  retryMs?: number | undefined;
}

export interface ApiRequest extends RequestOptions {
  query?: Record<string, string | number | boolean | undefined> | undefined;
  /** Sent as JSON; a string goes as it is. */
  body?: unknown;
  headers?: Record<string, string> | undefined;
  /** Whether it may be tried again when it is unknown whether it was done; by default all but POST. */
  idempotent?: boolean | undefined;
}

export interface TransportOptions {
  /** How long one try may take, in ms; default 30,000. */
  timeoutMs?: number | undefined;
  /** For how long a call is tried again, in ms; default 60,000. */
  retryMs?: number | undefined;
  /** Instead of the global one. */
  fetch?: typeof fetch | undefined;
}

type Authorization = Readonly<Record<string, string>>;
type Read<T> = (response: Response) => Promise<T>;

/** Sends requests: credentials, timeouts, retries. */
export class Transport {
  readonly #base: string;
  readonly #credentials: Credentials | undefined;
  readonly #options: TransportOptions;
  /** The token in use, and when (by performance.now) to get another. */
  #token: { shown: Authorization; renewAt: number } | undefined;
  #login: Promise<Authorization> | undefined;

  constructor(baseUrl: string, credentials: Credentials | undefined, options: TransportOptions) {
    this.#base = baseUrl.replace(/\/+$/, "");
    this.#credentials = credentials;
    this.#options = options;
  }

  /** The answer's JSON, its text if it is none, or undefined. */
  request<T>(method: string, path: string, request: ApiRequest = {}): Promise<T> {
    const { body, idempotent = method !== "POST" } = request;
    const encoded = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    return this.#retrying(request, idempotent, () =>
      this.#authorized(method, path, { ...request, body: encoded }, parsed<T>),
    );
  }

  /** An answer that is read as it comes. Signal and timeout are for its beginning; no retries. */
  open(path: string, request: ApiRequest): Promise<ReadableStream<Uint8Array>> {
    return this.#authorized("GET", path, request, async (response) => {
      if (response.body === null) throw new ConnectionError(`GET ${path}: the answer has no body`);
      return response.body;
    });
  }

  async #retrying<T>(options: RequestOptions, idempotent: boolean, once: () => Promise<T>): Promise<T> {
    const until = performance.now() + (options.retryMs ?? this.#options.retryMs ?? 60_000);
    for (let tries = 1; ; tries++) {
      try {
        return await once();
      } catch (error) {
        const wait = backoffMs(tries, error);
        if (!mayRetry(error, idempotent) || performance.now() + wait > until) throw error;
        await sleep(wait, options.signal);
      }
    }
  }

  /** Once more where the server takes the token in use no longer: there may be another. */
  async #authorized<T>(method: string, path: string, request: ApiRequest, read: Read<T>): Promise<T> {
    const shown = await this.#authorization(request.signal);
    try {
      return await this.#fetch(method, path, request, read, shown);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      if (this.#token?.shown === shown) this.#token = undefined;
      const other = await this.#authorization(request.signal);
      if (other["Authorization"] === shown["Authorization"]) throw error;
      return this.#fetch(method, path, request, read, other);
    }
  }

  async #authorization(signal: AbortSignal | undefined): Promise<Authorization> {
    const credentials = this.#credentials;
    signal?.throwIfAborted();
    if (credentials === undefined) return {};
    if ("apiKey" in credentials) return { "X-API-Key": credentials.apiKey };
    if ("token" in credentials) {
      return bearer(typeof credentials.token === "string" ? credentials.token : await credentials.token());
    }
    if (this.#token !== undefined && performance.now() < this.#token.renewAt) return this.#token.shown;
    // one login for all who wait, whoever of them gives up
    const login = (this.#login ??= this.#logIn(credentials).finally(() => (this.#login = undefined)));
    return unlessAborted(signal, (resolve: (shown: Authorization) => void, reject) => void login.then(resolve, reject));
  }

  async #logIn({ clientId: client_id, clientSecret: client_secret, scope }: Login): Promise<Authorization> {
    const form = { grant_type: "client_credentials", client_id, client_secret, ...(scope !== undefined && { scope }) };
    const headers = { "Content-Type": "application/x-www-form-urlencoded" };
    const login = { body: new URLSearchParams(form).toString(), headers };
    const asked = performance.now();
    const answer = await this.#retrying({}, true, () =>
      this.#fetch("POST", "/oauth/token", login, parsed<{ access_token: string; expires_in: number }>, {}),
    );
    // a minute ahead of its end, or half of a short life
    const lifeMs = answer.expires_in * 1000;
    const shown = bearer(answer.access_token);
    this.#token = { shown, renewAt: asked + Math.max(lifeMs / 2, lifeMs - 60_000) };
    return shown;
  }

  async #fetch<T>(
    method: string, path: string, request: ApiRequest, read: Read<T>, authorization: Authorization,
  ): Promise<T> {
    const { signal, body, headers, timeoutMs = this.#options.timeoutMs ?? 30_000 } = request;
    signal?.throwIfAborted();
    const url = new URL(this.#base + path);
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const giveUp = new AbortController();
    const abort = () => giveUp.abort();
    signal?.addEventListener("abort", abort, { once: true });
    const timer = setTimeout(abort, Math.min(timeoutMs, MAX_TIMER));
    try {
      const response = await (this.#options.fetch ?? fetch)(url, {
        method,
        headers: { ...(body !== undefined && { "Content-Type": "application/json" }), ...headers, ...authorization },
        body: (body ?? null) as string | null,
        signal: giveUp.signal,
      });
      if (response.ok) return await read(response);
      const told = (await parsed(response)) ?? response.statusText;
      throw new ApiError(response.status, told, retryAfterMs(response.headers.get("Retry-After")));
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof ApiError) throw error;
      const why = giveUp.signal.aborted ? `no answer within ${timeoutMs} ms` : causeOf(error);
      throw new ConnectionError(`${method} ${path}: ${why}`, { cause: error });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}

/** What setTimeout takes at most. */
const MAX_TIMER = 2 ** 31 - 1;

/** Waits; throws the reason of the signal when that aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout>;
  const slept = unlessAborted<void>(signal, (resolve) => void (timer = setTimeout(resolve, Math.min(ms, MAX_TIMER))));
  return slept.finally(() => clearTimeout(timer));
}

type Start<T> = (resolve: (value: T) => void, reject: (error: unknown) => void) => void;

function unlessAborted<T>(signal: AbortSignal | undefined, start: Start<T>): Promise<T> {
  let abort = () => {};
  const started = new Promise<T>((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    abort = () => reject(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    start(resolve, reject);
  });
  return started.finally(() => signal?.removeEventListener("abort", abort));
}

/** How long to wait before another try, in ms: doubles from 100 up to 5,000, half of it by chance. */
export function backoffMs(tries: number, error?: unknown): number {
  const asked = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
  return asked + Math.min(5_000, 50 * 2 ** tries) * (0.5 + Math.random() / 2);
}

/** Whether a failure may be over at the next try, and that try can do no harm. */
function mayRetry(error: unknown, idempotent: boolean): boolean {
  if (!(error instanceof ApiError)) return idempotent && error instanceof ConnectionError;
  return error.status === 429 || (idempotent && [502, 503, 504].includes(error.status));
}

function bearer(token: string): Authorization {
  return { Authorization: `Bearer ${token}` };
}

function retryAfterMs(header: string | null): number | undefined {
  if (header === null) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

async function parsed<T>(response: Response): Promise<T> {
  const text = await response.text();
  const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
  return (text === "" ? undefined : isJson ? JSON.parse(text) : text) as T;
}

/** Node's fetch says no more than "fetch failed", and why in the cause. */
function causeOf(error: unknown): string {
  const { message, cause } = error as { message?: string; cause?: { message?: string; code?: string } };
  return [message, cause?.message || cause?.code].filter(Boolean).join(": ") || String(error);
}
