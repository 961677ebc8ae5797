import type { Client } from "./client.js";
import { Reject, Retry, isPassing, reasonOf } from "./errors.js";
import { backoffMs, sleep } from "./transport.js";
import type { Message, Nack, Settle, SettleResult } from "./types.js";

/** Returns: ack. Throws: nack with the error as the reason; `Retry` and `Reject` say more. */
export type Handler<Payload> = (
  message: Message<Payload>,
  context: {
    /** Aborts when the lease is lost, so that somebody else may have the message, or the time of `stop` is over. */
    signal: AbortSignal;
  },
) => unknown;

export interface WorkerOptions {
  /** How many messages are handled at a time, 1 to 1000; default 1. No more are leased. */
  concurrency?: number | undefined;
  /** How long a lease lasts without an extension, in seconds; default 30. After a crash others get it then. */
  ackDeadlineSeconds?: number | undefined;
  /** How long a pull waits for messages, 0 to 30 seconds; default 30. */
  waitSeconds?: number | undefined;
  /** How long handlers may take to finish after `stop`, in seconds; default 20. */
  stopTimeoutSeconds?: number | undefined;
  /** Node: stop on these, such as `["SIGTERM", "SIGINT"]`; the second one ends the process. */
  signals?: readonly string[] | undefined;
  /** Stops the worker. */
  signal?: AbortSignal | undefined;
  /** Who pulls; by default the client's. */
  consumerId?: string | undefined;
  /** Hears of errors of handlers, with the message, and of requests; by default the console does. */
  onError?: ((error: unknown, message?: Message<never>) => void) | undefined;
}

interface Running {
  abort: AbortController;
  /** Tells the handler when the lease ends without having been extended. */
  leaseEnd?: ReturnType<typeof setTimeout>;
}

/** What is to be said of a delivery, as `/settle` takes it. */
type Entry = Nack & { kind: keyof Settle; seconds?: number };

/** The part of Node's process that signals need. */
interface Signals {
  once(signal: string, listener: () => void): void;
  off(signal: string, listener: () => void): void;
}

/**
 * Pulls as many messages as it has handlers free, so that each begins at once and none waits with its deadline
 * running. What is done meanwhile is settled by the next pull; while that waits for messages, by a request.
 */
export class Worker<Payload = Record<string, unknown>> {
  /**
   * Resolves when the worker has stopped. Rejects when the server refuses its pulls (401, 403, 404, 422); a worker
   * that nobody watches then ends the process, rather than stand still in silence.
   */
  readonly finished: Promise<void>;
  readonly #running = new Map<string, Running>();
  /** By receipt, as a request may name each once: the last that is to be said of it. */
  readonly #queue = new Map<string, Entry>();
  readonly #pulls = new AbortController();
  readonly #concurrency: number;
  readonly #deadlineMs: number;
  /** What hangs is said again before leases end. */
  readonly #settleTimeoutMs: number;
  readonly #onError: NonNullable<WorkerOptions["onError"]>;
  #stopping = false;
  #timeIsOver = false;
  /** What ends cannot be settled by a pull soon. */
  #waiting = false;
  #flushing: Promise<void> | undefined;
  /** Wakes what waits for a handler to end, or for `stop`. */
  #wake: () => void = () => {};

  constructor(
    private readonly client: Client,
    private readonly subscription: string,
    private readonly handler: Handler<Payload>,
    private readonly options: WorkerOptions = {},
  ) {
    this.#concurrency = options.concurrency ?? 1;
    if (!(this.#concurrency >= 1)) throw new RangeError(`concurrency is ${this.#concurrency}, not 1 to 1000`);
    this.#onError = options.onError ?? ((error) => console.error(`worker of ${subscription}: ${String(error)}`));
    this.#deadlineMs = (options.ackDeadlineSeconds ?? 30) * 1000;
    this.#settleTimeoutMs = Math.max(1000, this.#deadlineMs / 3);
    this.finished = Promise.resolve().then(() => this.#run());
  }

  /**
   * Pulls no more; handlers have `stopTimeoutSeconds` to finish, then their signals abort, and what is left after
   * another second is given back. Resolves when all is settled.
   */
  async stop(): Promise<void> {
    if (!this.#stopping) {
      this.#stopping = true;
      this.#wake();
      // Who hangs up while messages are on their way to him loses them until their leases end, and a pull that has
      // some answers in milliseconds. From one that just waits the server takes everything back.
      setTimeout(() => this.#pulls.abort(), 200);
    }
    await this.finished.catch(() => {});
  }

  async #run(): Promise<void> {
    const { process } = globalThis as { process?: Signals };
    const { signal, signals = [] } = this.options;
    const stop = () => void this.stop();
    for (const name of signals) process?.once(name, stop);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    const extending = setInterval(() => this.#extend(), this.#deadlineMs / 3);
    try {
      for (let failures = 0; !this.#stopping; ) failures = await this.#round(failures);
    } finally {
      this.#stopping = true;
      await this.#drain();
      clearInterval(extending);
      for (const name of signals) process?.off(name, stop);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** One pull, or a wait for a handler to end; returns how many pulls have failed in a row. */
  async #round(failures: number): Promise<number> {
    const free = this.#concurrency - this.#running.size;
    if (free < 1) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      return 0;
    }
    const entries = this.#take();
    // the results are wanted now, not when there are messages
    const wait = entries.length > 0 ? 0 : (this.options.waitSeconds ?? 30);
    const pull = {
      consumer_id: this.options.consumerId ?? this.client.consumerId,
      max_messages: free,
      wait_seconds: wait,
      ack_deadline_seconds: this.#deadlineMs / 1000,
      ...(entries.length > 0 && { settle: toSettle(entries) }),
    };
    const options = { signal: this.#pulls.signal, retryMs: 0, timeoutMs: wait > 0 ? undefined : this.#settleTimeoutMs };
    const asked = performance.now();
    this.#waiting = wait > 0;
    try {
      const { messages, results = [] } = await this.client.pull<Payload>(this.subscription, pull, options);
      this.#settled(results, asked);
      for (const message of messages) void this.#handle(message);
      // a server that stops sends those home who wait
      if (wait > 0 && messages.length === 0 && performance.now() - asked < 100) await this.#pause(1);
      return 0;
    } catch (error) {
      this.#putBack(entries);
      if (this.#pulls.signal.aborted) return 0;
      if (!isPassing(error)) throw error;
      this.#onError(error);
      await this.#pause(failures + 1, error);
      return failures + 1;
    } finally {
      this.#waiting = false;
    }
  }

  async #pause(tries: number, error?: unknown): Promise<void> {
    this.#waiting = true;
    await sleep(backoffMs(tries, error), this.#pulls.signal).catch(() => {});
  }

  async #handle(message: Message<Payload>): Promise<void> {
    const receipt = message.receipt as string;
    const running: Running = { abort: new AbortController() };
    this.#running.set(receipt, running);
    this.#leased(running, performance.now());
    let entry: Entry = { kind: "acks", receipt };
    try {
      await this.handler(message, { signal: running.abort.signal });
    } catch (error) {
      this.#onError(error, message as Message<never>);
      entry = { kind: error instanceof Reject ? "rejects" : "nacks", receipt, reason: reasonOf(error) };
      if (error instanceof Retry) entry.delay_seconds = error.delaySeconds;
      // who was told to stop did not fail
      else if (entry.kind === "nacks" && this.#timeIsOver) entry.delay_seconds = 0;
    }
    clearTimeout(running.leaseEnd);
    // else it was given back
    if (!this.#running.delete(receipt)) return;
    this.#queue.set(receipt, entry);
    this.#wake();
    if (this.#waiting || this.#stopping) void this.#flush();
  }

  #leased(running: Running, since: number): void {
    clearTimeout(running.leaseEnd);
    const lost = () => running.abort.abort(new Error("the lease is lost: somebody else may have the message"));
    // a little ahead: it began before its message arrived
    running.leaseEnd = setTimeout(lost, Math.max(0, since + 0.95 * this.#deadlineMs - performance.now()));
  }

  #extend(): void {
    for (const receipt of this.#running.keys()) {
      this.#queue.set(receipt, { kind: "extends", receipt, seconds: this.#deadlineMs / 1000 });
    }
    void this.#flush();
  }

  /** Settles what is queued, by requests of its own, one at a time. */
  #flush(): Promise<void> {
    return (this.#flushing ??= this.#settleAll().finally(() => (this.#flushing = undefined)));
  }

  async #settleAll(): Promise<void> {
    const options = { timeoutMs: this.#settleTimeoutMs, retryMs: 0 };
    for (let tries = 1; this.#queue.size > 0; tries++) {
      const entries = this.#take();
      const asked = performance.now();
      try {
        this.#settled(await this.client.settle(this.subscription, toSettle(entries), options), asked);
        tries = 0;
      } catch (error) {
        this.#onError(error);
        // what cannot be settled comes again when its lease ends
        if (!isPassing(error) || (this.#stopping && tries > 5)) return;
        this.#putBack(entries);
        await sleep(Math.min(backoffMs(tries, error), this.#deadlineMs / 10));
      }
    }
  }

  #take(): Entry[] {
    const entries = [...this.#queue.values()].slice(0, 1000);
    for (const { receipt } of entries) this.#queue.delete(receipt);
    return entries;
  }

  /** What was said since goes first, and what has ended is not extended. */
  #putBack(entries: Entry[]): void {
    for (const entry of entries) {
      const over = entry.kind === "extends" && !this.#running.has(entry.receipt);
      if (!over && !this.#queue.has(entry.receipt)) this.#queue.set(entry.receipt, entry);
    }
  }

  /** What became of extensions; those who ack and nack cannot do more about it. */
  #settled(results: SettleResult[], asked: number): void {
    for (const { receipt, status } of results) {
      const running = this.#running.get(receipt);
      // a lease that is lost ended before it was asked for
      if (running !== undefined) this.#leased(running, status === "extended" ? asked : -Infinity);
    }
  }

  async #drain(): Promise<void> {
    if (!(await this.#allEnded((this.options.stopTimeoutSeconds ?? 20) * 1000))) {
      this.#timeIsOver = true;
      for (const { abort } of this.#running.values()) abort.abort(new Error("the worker stops"));
      await this.#allEnded(1000);
    }
    for (const [receipt, { leaseEnd }] of this.#running) {
      clearTimeout(leaseEnd);
      this.#queue.set(receipt, { kind: "nacks", receipt, delay_seconds: 0, reason: "the worker stopped" });
    }
    this.#running.clear();
    // the one that is under way may have been about to end
    await this.#flush();
    await this.#flush();
  }

  /** Whether all handlers ended within so many ms. */
  async #allEnded(ms: number): Promise<boolean> {
    let late = false;
    const timer = setTimeout(() => ((late = true), this.#wake()), ms);
    while (this.#running.size > 0 && !late) await new Promise<void>((resolve) => (this.#wake = resolve));
    clearTimeout(timer);
    return this.#running.size === 0;
  }
}

function toSettle(entries: Entry[]): Settle {
  const settle = { acks: [] as string[], nacks: [] as object[], rejects: [] as object[], extends: [] as object[] };
  for (const { kind, ...entry } of entries) {
    if (kind === "acks") settle.acks.push(entry.receipt);
    else settle[kind].push(entry);
  }
  return settle as Settle;
}
