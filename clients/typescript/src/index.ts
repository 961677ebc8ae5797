export { Client, type ClientOptions, type PublishOptions } from "./client.js";
export { ApiError, ConnectionError, Reject, Retry, type Fault } from "./errors.js";
export type { Publisher, PublisherOptions } from "./publisher.js";
export type { StreamOptions } from "./stream.js";
export type { ApiRequest, Credentials, RequestOptions } from "./transport.js";
export type * from "./types.js";
export type { Handler, Worker, WorkerOptions } from "./worker.js";
