# docker build -t semseg . ; how to run it stands in the README.
FROM python:3.11-slim
WORKDIR /src
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY semseg semseg
# Any user may write there: `--user` gives the results to whoever ran it.
RUN pip install --no-cache-dir --no-deps . && install -d -m 1777 /data /cache /semseg /semseg/images /semseg/outputs
# All caches lie in the home folder; PyTorch's compiler asks for the name of the user.
ENV HOME=/cache USER=semseg KERAS_BACKEND=torch
USER 1000:1000
WORKDIR /semseg
VOLUME ["/data", "/semseg/outputs", "/cache"]
ENTRYPOINT ["semseg"]
CMD ["--help"]
