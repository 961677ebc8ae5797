# Image of the fastpubsub binary. There is no Postgres inside, so the private database that
# `fastpubsub server` starts on a workstation is not available here: set FASTPUBSUB_DATABASE_URL.
#
#   docker build -t fastpubsub:0.1.0 .
#   docker run --rm -e FASTPUBSUB_DATABASE_URL=... fastpubsub:0.1.0 db-migrate
#   docker run -p 8000:8000 -e FASTPUBSUB_DATABASE_URL=... fastpubsub:0.1.0

# Same Debian release as the runtime stage: the binary links to its glibc. The image's gcc and
# make are all that aws-lc-sys and jemalloc need; on x86_64 and aarch64 the former ships its bindings and
# builds without CMake.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY sql sql
COPY migrations migrations
# tests/main.rs, benches/*/main.rs: Cargo.toml declares them and cargo refuses a declared target
# without its file; empty ones keep the build from running again when a test changes.
# touch: the cached target directory may be newer than the files of an older checkout, and cargo,
# which compares times, would then ship the previous binary.
# cp: a cache mount is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    mkdir -p tests benches/fanout benches/throughput benches/torture \
    && touch tests/main.rs benches/fanout/main.rs benches/throughput/main.rs benches/torture/main.rs \
    && find src sql migrations -type f -exec touch {} + \
    && cargo build --release --locked --bin fastpubsub \
    && cp target/release/fastpubsub /usr/local/bin/fastpubsub

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="fastpubsub" \
      org.opencontainers.image.description="Postgres-native pub/sub over HTTP" \
      org.opencontainers.image.licenses="MIT"
# The slim image has no certificate authorities: these are the ones that TLS to the database trusts.
# Mount another file here, or name one with SSL_CERT_FILE or sslrootcert, for an authority of your own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/bin/fastpubsub /usr/local/bin/fastpubsub
# A number, since Kubernetes cannot tell whether a user name is root (runAsNonRoot).
USER 10001:10001
EXPOSE 8000
# The server drains on SIGTERM; allow it FASTPUBSUB_API_SHUTDOWN_TIMEOUT_SECONDS (30) and 2 s more,
# while `docker stop` waits 10 s unless told otherwise. Other subcommands end at once.
STOPSIGNAL SIGTERM
# Exec form: the binary itself gets the signal, and `docker run IMAGE db-migrate` works.
ENTRYPOINT ["/usr/local/bin/fastpubsub"]
CMD ["server"]
