#!/bin/sh
# HAProxy as Ray starts it, but with three doors shut that Ray leaves open and has no settings for:
#   its pages of metrics and statistics answer on this machine alone, not on every interface;
#   its admin socket is its owner's alone, not everybody's on the machine;
#   a caller has so many seconds for a request's head, not an hour.
# Ray takes this for its binary (RAY_SERVE_HAPROXY_BINARY_PATH) and writes the file after -f anew each
# time. MINIML_HAPROXY is the real one.
config=
previous=
for argument in "$@"; do
  [ "$previous" = "-f" ] && config=$argument
  previous=$argument
done
if [ -n "$config" ]; then
  shut="$config.shut"
  sed -e 's/^\( *bind \)\*\{0,1\}:\([0-9][0-9]*\)$/\1127.0.0.1:\2/' \
    -e 's/^\( *stats socket .*\) mode 666 /\1 mode 600 /' \
    -e "/^defaults/,/^ *mode http/s/^\( *\)mode http\$/&\n\1timeout http-request ${MINIML_BODY_TIMEOUT_S:-30}s/" \
    "$config" >"$shut" && mv "$shut" "$config"
fi
exec "${MINIML_HAPROXY:-haproxy}" "$@"
