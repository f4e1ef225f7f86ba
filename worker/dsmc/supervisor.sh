# Runs one command and writes down how it ended. It outlives the worker that started it.
#
#   sh supervisor.sh DIRECTORY COMMAND [ARGUMENT...]
#
# Standard output is the run's lock, held for as long as this shell lives; standard error is the transcript.
# The command gets the transcript as both and never sees the lock. DIRECTORY gets
#   started  this boot's id and this shell's line of /proc/PID/stat: process id and start time, so that no
#            stranger is ever taken for it; written before the command starts
#   exit     the command's exit status and the host's uptime at its end, by temporary file and rename
# A full disk holds both up, and neither is given up, as long as there is a DIRECTORY: a status is worth the wait
# after hours of backup.
run=$1
shift
trap : HUP INT TERM # a signal to the whole group is the command's to answer; this shell stays for the status
read -r boot </proc/sys/kernel/random/boot_id
read -r stat <"/proc/$$/stat"
until echo "$boot $stat" 2>/dev/null >"$run/started"; do sleep 1 && [ -d "$run" ] || exit 1; done
exec 3>&2 2>/dev/null # the transcript is the command's: no word of this shell's own in it
(exec "$@" >&3 2>&3 3>&-)
status=$?
read -r uptime _ </proc/uptime
until echo "$status $uptime" >"$run/exit.new" && mv -f "$run/exit.new" "$run/exit"; do
  sleep 1 && [ -d "$run" ] || exit 1
done
# The worker that started this is about to put the status into its journal. If it is gone (another process is the
# parent now), the status has to outlive a power cut by itself until the next worker comes.
read -r stat <"/proc/$$/stat"
stat=${stat##*) ? }
[ "${stat%% *}" = "$PPID" ] || sync "$run/exit" "$run"
