#!/bin/sh
# HAProxy as Ray starts it, but with three doors shut that Ray leaves open and has no settings for:
#   its pages of metrics and statistics answer on this machine alone, not on every interface;
#   its admin socket is its owner's alone, not everybody's on the machine;
#   a caller has so many seconds for a request's head, not an hour.
# And where Ray makes a 500 of a replica that is lost or not to be found, or a 404 while it has not said
# yet what is served, it is a 502 or 503, after which callers may ask again, in our errors' form.
# And who says how long a body is has it read before a replica is chosen: HAProxy can ask another replica
# only what it has as a whole. A stream of lines has no length, and is passed on as it comes.
# And it writes no line of log for every request to a port of syslog where nobody listens, unless somebody
# names one (RAY_SERVE_HAPROXY_LOG_TARGET): a fifth of its time in the kernel, and whose requests they are.
# Ray takes this for its binary (RAY_SERVE_HAPROXY_BINARY_PATH) and writes the file after -f anew each
# time. MINIML_HAPROXY is the real one.
config=
previous=
for argument in "$@"; do
  [ "$previous" = "-f" ] && config=$argument
  previous=$argument
done
error() { # status, type, message
  printf '%s' "status $1 content-type application/json string \
'{\"error\":{\"type\":\"$2\",\"message\":\"$3\",\"hint\":\"Ask again.\"}}' hdr retry-after 1"
}
if [ -n "$config" ]; then
  shut="$config.shut"
  lost=$(error 502 ReplicaLost "The replica ended before it answered.")
  none=$(error 503 NoReplica "No replica can be reached.")
  slow=$(error 408 SlowBody "The request did not come in time.")
  unserved="s|^\( *http-request return \)status 404 .*|\1$none|"
  grep -q '^ *use_backend ' "$config" && unserved='s/^//' # something is served; it stays
  wait_s=${MINIML_BODY_TIMEOUT_S:-30}
  whole="http-request wait-for-body time ${wait_s}s if { req.hdr(content-length) -m found }"
  unheard='/^ *log .* local0 info$/d'
  [ -n "${RAY_SERVE_HAPROXY_LOG_TARGET:-}" ] && unheard='s/^//' # somebody listens
  here='s/^\( *bind \)\*\{0,1\}:\([0-9][0-9]*\)$/\1127.0.0.1:\2/'
  sed -e "/^frontend prometheus/,/^frontend http/$here" -e "/^listen stats/,\$$here" \
    -e 's/^\( *stats socket .*\) mode 666 /\1 mode 600 /' \
    -e "/^defaults/,/^ *mode http/s/^\( *\)mode http\$/&\n\1timeout http-request ${wait_s}s/" \
    -e "s/^frontend http_frontend\$/&\n    $whole/" \
    -e "s|^\( *\)errorfile 502 .*|\1http-error $lost|" -e "s|^\( *\)errorfile 503 .*|\1http-error $none|" \
    -e "s|^\( *\)errorfile 504 .*|\1http-error $slow|" \
    -e "$unheard" -e "/^backend default_backend/,/^backend/$unserved" \
    "$config" >"$shut" && mv "$shut" "$config"
fi
exec "${MINIML_HAPROXY:-haproxy}" "$@"
