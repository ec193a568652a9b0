# Runs a private PostgreSQL for as long as standard input stays open; see cluster.rs.
#
# $1  the directory of the server's programs
# $2  the lines to add to postgresql.conf
# $3  where its data is to live: `memory` or `disk`
#
# Prints `ready` once the server accepts connections. Whatever else it prints is a problem.
set -eu
exec 2>&1
bin=$1
settings=$2
place=$3
umask 077
# Whoever reads our output may be gone: a write must then fail instead of ending us.
trap '' PIPE

stop() {
    trap '' HUP INT TERM
    cd /
    if [ -f "$dir/data/postmaster.pid" ]; then
        # Not `fast` alone: the server may be frozen, or a session may hold out against its end.
        "$bin/pg_ctl" -D "$dir/data" -w -t 10 -m fast stop >/dev/null 2>&1 ||
            "$bin/pg_ctl" -D "$dir/data" -w -t 5 -m immediate stop >/dev/null 2>&1 ||
            kill_postmaster
    fi
    # Processes that outlive a killed postmaster for a moment may still write a last file.
    rm -rf "$dir" 2>/dev/null || { sleep 1; rm -rf "$dir"; }
}

kill_postmaster() {
    read -r pid <"$dir/data/postmaster.pid" || return 0
    # Nothing to kill if it crashed before.
    kill -KILL "$pid" 2>/dev/null || return 0
    sleep 1
}

fail() {
    echo "$1:" || :
    cat "$2" 2>/dev/null || :
    exit 1
}

# A database of its own for each test is some 300 files; a file system in memory makes it in a
# third of the time. Who says where temporary files belong is heard first.
memory=
if [ "$place" = memory ] && [ -z "${TMPDIR:-}" ] && free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }') &&
    [ "${free:-0}" -ge 4194304 ]; then
    memory=/dev/shm
fi

dir=
for base in $memory "${TMPDIR:-/tmp}" /tmp /var/tmp; do
    # In memory nothing waits for a disk, and a large database may not fit.
    if [ "$place" = disk ] && df -Pk -t tmpfs -t ramfs "$base" >/dev/null 2>&1; then
        continue
    fi
    # The socket's path must fit into about 100 bytes, which rules out a deep TMPDIR.
    if [ "${#base}" -le 60 ] && dir=$(mktemp -d "$base/xtask-postgres.XXXXXX" 2>/dev/null); then
        break
    fi
done
if [ -z "$dir" ]; then
    echo "no directory to write to: tried ${TMPDIR:-/tmp}, /tmp and /var/tmp as $(id -un)"
    exit 1
fi
trap stop EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"

"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C -N >initdb.log 2>&1 ||
    fail "initdb failed" initdb.log
{
    printf '%s\n' "$settings"
    printf "unix_socket_directories = '%s'\n" "$dir"
} >>data/postgresql.conf
# Waits until the server accepts connections, by its own word in postmaster.pid: unlike a
# connection attempt, that cannot mistake another server on the same port for ours.
"$bin/pg_ctl" -D "$dir/data" -l server.log -w -t 60 start >start.log 2>&1 </dev/null ||
    { cat start.log >>server.log; fail "the server did not start; its log" server.log; }

echo ready || :
while read -r _; do :; done
