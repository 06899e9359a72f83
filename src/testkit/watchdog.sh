# Guards the folder $1 until standard input closes; see watchdog.rs.
trap '' HUP INT TERM PIPE
mkdir -m 700 "$1" || exit 1
echo ready
exec >/dev/null
while read -r _; do :; done

# Prints the servers and their children: on Linux whatever PostgreSQL process stands in the folder, also one that has
# lost its postmaster, and whatever process is marked with the folder. Elsewhere the postmasters with their children.
processes() {
    if [ -e /proc/self/cwd ]; then
        ls -l /proc/[0-9]*/cwd 2>/dev/null | while read -r line; do
            case "$line" in
            *" -> $1" | *" -> $1/"*)
                pid=${line%%/cwd -> *}
                pid=${pid##*/proc/}
                read -r name <"/proc/$pid/comm" && read -r line <"/proc/$pid/stat" || continue
                line=${line##*) }
                # A zombie (Z) is dead, and waits only for its parent.
                [ "${line%% *}" != Z ] || continue
                # A user's shell in the folder is neither. A server overwrites its environment.
                [ "$name" = postgres ] || grep -qzxF "POINTSMAN_TESTKIT_FOLDER=$1" "/proc/$pid/environ" || continue
                echo "$pid"
                ;;
            esac
        done 2>/dev/null
    else
        for file in "$1"/*/postmaster.pid; do
            [ -e "$file" ] || continue
            read -r postmaster <"$file"
            ps -p "$postmaster" -o command= | grep -qF "$1" || continue
            echo "$postmaster"
            ps -A -o pid=,ppid= | while read -r pid parent; do
                [ "$parent" = "$postmaster" ] && echo "$pid"
            done
        done
    fi
}

# SIGKILL also ends what is stopped. All are asked again: one may have been starting meanwhile.
round=0
while [ "$round" -lt 100 ]; do
    pids=$(processes "$1")
    [ -n "$pids" ] || break
    # Stopped first, so that no postmaster starts another child while they are counted.
    kill -STOP $pids 2>/dev/null
    kill -KILL $pids $(processes "$1") 2>/dev/null
    sleep 0.02
    round=$((round + 1))
done

# A postmaster that was killed leaves its small System V segment; line 7 has its key and number.
for file in "$1"/*/postmaster.pid; do
    [ -e "$file" ] || continue
    segment=$(sed -n '7s/.* //p' "$file")
    [ -z "$segment" ] || ipcrm -m "$segment" 2>/dev/null
done

# A program that is copying may still be writing.
round=0
while [ -e "$1" ] && [ "$round" -lt 100 ]; do
    rm -rf "$1" 2>/dev/null || sleep 0.02
    round=$((round + 1))
done
