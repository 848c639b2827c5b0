# One image with thermodrift and Prefect's server and worker, for all services of compose.yaml.
#
#     docker build --tag thermodrift .
#
# All dependencies are in requirements.lock, with hashes. No process of it runs as root.
FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv /opt/thermodrift \
    && /opt/thermodrift/bin/pip install --no-cache-dir --no-deps --require-hashes \
        --requirement requirements.lock
COPY pyproject.toml README.md LICENSE thermodrift.py ./
COPY observability observability
COPY power power
COPY models models
COPY flows flows
# The build backend is in the lock, so pip needs no separate build environment.
RUN /opt/thermodrift/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
# scikit-learn's threads need the library of OpenMP.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 thermodrift \
    && install --directory --owner thermodrift --mode 0700 /home/thermodrift/home
COPY --from=build /opt/thermodrift /opt/thermodrift
ENV PATH=/opt/thermodrift/bin:$PATH \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_RESULTS_PERSIST_BY_DEFAULT=false \
    THERMODRIFT_HOME=/home/thermodrift/home
USER 10001
WORKDIR /home/thermodrift
VOLUME /home/thermodrift/home
ENTRYPOINT []
CMD ["thermodrift", "--help"]
