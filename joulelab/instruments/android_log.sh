#!/system/bin/sh
# Logs a phone's battery and power monitors on the phone, with nothing plugged in:
#   sh android_log.sh [INTERVAL_S [FILE [SECONDS]]]
# It ends after SECONDS (an hour), or when FILE.stop exists. Builtins do all but the waiting.
interval=${1:-0.25}
log=${2:-/data/local/tmp/joulelab.log}
seconds=${3:-3600}
rm -f "$log.stop"

if [ -n "$KSH_VERSION" ]; then say() { print -r -- "$1"; }; else say() { printf '%s\n' "$1"; }; fi

# Every line of a file ($1), after its name ($2).
lines() {
  while IFS= read -r line || [ -n "$line" ]; do say "$2 $line"; done 2>/dev/null <"$1"
}

# Wall-clock time, because it counts microseconds, and the time since boot, because nobody sets it.
stamp() {
  IFS=' ' read -r up rest </proc/uptime
  wall=$EPOCHREALTIME
  [ -n "$wall" ] || wall=$(date +%s.%N)
}

reading() {
  stamp
  say "@ $wall $up"
  for gauge in battery bms MainBattery main-battery maxfg max170xx_battery Battery; do
    for name in status current_now voltage_now charge_counter temp; do
      file=/sys/class/power_supply/$gauge/$name
      [ -r "$file" ] && lines "$file" "$gauge/$name"
    done
  done
  for file in /sys/class/power_supply/*/online /sys/bus/iio/devices/*/energy_value; do
    [ -r "$file" ] && { name=${file%/*}; lines "$file" "${name##*/}/${file##*/}"; }
  done
  say .
}

{
  say '# joulelab android log 1'
  say "# serial $(getprop ro.serialno)"
  say "# model $(getprop ro.product.model)"
  stamp
  end=$((${up%%.*} + seconds))
  while [ "${up%%.*}" -lt "$end" ] && [ ! -e "$log.stop" ]; do
    reading
    sleep "$interval"
  done
} >"$log"
