/** One thing that is wrong with a request: where (`["body", "messages", 3, "priority"]`) and what. */
export interface Fault {
  type: string;
  loc: (string | number)[];
  msg: string;
  input?: unknown;
}

/** The server refused a request, or failed. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** What is wrong, in one sentence. */
  readonly detail: string;
  /** Of a request of the wrong form (422): each fault with its place. Else empty. */
  readonly faults: readonly Fault[];
  /** What a conflict (409) is about, such as the receipts that are stale. */
  readonly about: readonly string[];

  constructor(
    /** The HTTP status. */
    readonly status: number,
    body: unknown,
    /** When to try again, in ms from now, where the server said so. */
    readonly retryAfterMs?: number,
  ) {
    const told = (typeof body === "object" && body !== null ? body : {}) as {
      detail?: string | Fault[];
      error_description?: string;
      about?: string[];
    };
    const faults = Array.isArray(told.detail) ? told.detail : [];
    const text = typeof told.detail === "string" ? told.detail : told.error_description;
    const detail =
      faults.map((fault) => `${fault.loc.join(".")}: ${fault.msg}`).join("; ") ||
      (text ?? (String(body ?? "").slice(0, 200) || "no reason was given"));
    super(`${status}: ${detail}`);
    this.detail = detail;
    this.faults = faults;
    this.about = told.about ?? [];
  }

  /** The place of the first fault, such as `body.messages.3.priority`. */
  get path(): string | undefined {
    return this.faults[0]?.loc.join(".");
  }
}

/** There was no answer: no connection, one that broke, or none in time. What was asked for may have been done. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** Whether the next try may fare better. */
export function isPassing(error: unknown): boolean {
  return error instanceof ConnectionError || (error instanceof ApiError && (error.status >= 500 || error.status === 429));
}

/** Throw it in a handler for a message that nobody can ever handle: it becomes a dead letter at once. */
export class Reject extends Error {
  override readonly name = "Reject";
}

/** Throw it in a handler to get the message again after a time of your own instead of the backoff. */
export class Retry extends Error {
  override readonly name = "Retry";

  constructor(
    /** When, in whole seconds from now: 0 to 43200. */
    readonly delaySeconds: number,
    reason?: string,
  ) {
    super(reason);
    if (!Number.isInteger(delaySeconds) || delaySeconds < 0 || delaySeconds > 43200) {
      throw new RangeError(`delaySeconds is ${delaySeconds}, not a whole number from 0 to 43200`);
    }
  }
}

/** What a nack or a reject says: at most 1024 characters, none that the server refuses. */
export function reasonOf(error: unknown): string | undefined {
  const text =
    error instanceof Reject || error instanceof Retry
      ? error.message
      : error instanceof Error
        ? `${error.name}: ${error.message}`
        : String(error);
  // NUL and halves of surrogate pairs cannot be stored: one would spoil the acks that go with it
  const clean = text.replace(/\0|\p{Surrogate}/gu, "\ufffd");
  return Array.from(clean.slice(0, 2048)).slice(0, 1024).join("").replace(/\p{Surrogate}/gu, "") || undefined;
}
