"""Images for tests of docker-compose.yml: those that it names, or stand-ins where no registry can be reached.

The stand-ins are made of Debian's testing, from where the image of nginx has its packages too: that of older releases
does not know `server … resolve`, and their Prometheus is of another major version. They have the users, the folders and
the commands that the file relies on. Debian has no Grafana; what stands in for it answers its health check and nothing
else, so that all around it can be tried.
"""

from tests.test_container import podman

_FILE = r"""
FROM docker.io/library/python:3.13-slim AS testing
RUN from=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d | head -n 1) \
 && echo "deb $from forky main" >> /etc/apt/sources.list \
 && apt-get -o Acquire::Check-Valid-Until=false update -qq
ENV DEBIAN_FRONTEND=noninteractive
ENV INSTALL="apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-overwrite"

FROM testing AS nginx
RUN $INSTALL nginx curl

FROM testing AS prometheus
RUN $INSTALL prometheus busybox \
 && ln -s busybox /bin/wget \
 && install -d -o nobody -g nogroup /prometheus
USER nobody
ENTRYPOINT ["/bin/prometheus"]

FROM prometheus AS grafana
USER root
RUN printf '#!/bin/sh\nexec busybox httpd -f -p 3000 -h /srv\n' > /run.sh && chmod 755 /run.sh \
 && mkdir /srv/api && touch /srv/api/health \
 && install -d -o 472 /var/lib/grafana
USER 472
STOPSIGNAL SIGKILL
ENTRYPOINT ["/run.sh"]
"""


def is_there(name: str) -> bool:
    known = podman("image", "exists", name, check=False).returncode == 0
    return known or podman("pull", "--quiet", name, check=False).returncode == 0


def image_for(service: str, name: str) -> str:
    """The image of that name, or what stands in for it: `service` is nginx, prometheus or grafana."""
    if is_there(name):
        return name
    stand_in = f"localhost/gmi-gateway-test-{name}"
    if podman("image", "exists", stand_in, check=False).returncode:
        words = ("build", "--network=host", f"--target={service}", f"--tag={stand_in}", "--file=-")
        built = podman(*words, input=_FILE, check=False)
        assert built.returncode == 0, built.stdout + built.stderr
    return stand_in
