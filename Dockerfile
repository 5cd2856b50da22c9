# The image of Bellhop: one program for operator, receivers and all else. `make image` builds the same
# without a Docker daemon.
#
# The tag is for people, the digest is what counts.
FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
# The compiler of the image is the one of rust-toolchain.toml; its other components are not needed.
ENV RUSTUP_TOOLCHAIN=1.95.0
# Writes the list of dependencies into the program: `cargo audit bin` and image scanners read it there.
RUN cargo install --locked cargo-auditable@0.7.4
WORKDIR /src
COPY . .
RUN cargo auditable build --release --locked && image/rootfs target/release/bellhop /rootfs

FROM scratch
COPY --from=build /rootfs/ /
USER 65532:65532
ENTRYPOINT ["/bellhop"]
LABEL org.opencontainers.image.title="bellhop" \
      org.opencontainers.image.description="Kubernetes operator and receiver for webhook subscriptions of Redeam / Travel Curious" \
      org.opencontainers.image.licenses="Apache-2.0"
