# The image of every searcher and Ray container: see docker-compose.yml and docs/cluster.md.
FROM python:3.12.13-slim-bookworm

# A container may run under any user id, one without an entry in /etc/passwd too: HOME and USER stand in for it.
ENV HOME=/home/searcher \
    USER=searcher \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0
RUN groupadd --gid 1000 searcher && useradd --uid 1000 --gid 1000 --create-home searcher \
    # What drivers keep beside the database (SEARCHER_STATE); a new volume there is writable for any user, as this is.
    && install --directory --mode 1777 /var/lib/searcher

WORKDIR /opt/searcher

# The dependencies take gigabytes and change seldom: a layer of their own, which a change of the source leaves alone.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        extras = [project["optional-dependencies"][extra] for extra in ("cluster", "metrics", "parquet", "postgres")]; \
        print(*project["dependencies"], *sum(extras, []), sep="\n")' > requirements.txt \
    && pip install --requirement requirements.txt --constraint constraints.txt

# By name, so that nothing else that lies in the directory, secrets above all, can get into the image.
COPY README.md LICENSE cli.py ./
COPY search_space search_space
COPY workers workers
COPY searcher searcher
RUN pip install --no-deps . && searcher --help > /dev/null

USER 1000:1000
WORKDIR /home/searcher
CMD ["searcher", "--help"]
