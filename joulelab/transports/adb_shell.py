"""The shell programs that a phone runs for `adb`: for mksh with toybox (Android) and for POSIX shells.

What runs for each reading is built in, since a phone takes milliseconds to start a process. mksh has the wall clock
in EPOCHREALTIME, its `print` is built in but its `printf` is not; other shells have it the other way round.
"""

from __future__ import annotations

_COMMON = r"""
M=$(printf '\036'); E=$(printf '\035'); N='
'
if [ -n "$KSH_VERSION" ]; then say() { print -rn -- "$1"; }; else say() { printf %s "$1"; }; fi
now() {
  IFS=' ' read -r up rest </proc/uptime
  wall=$EPOCHREALTIME
  [ -n "$wall" ] || wall=$(date +%s.%N)
  IFS=' ' read -r later rest </proc/uptime
  clock="$wall $up $later"
}
exec 2>/dev/null
say "$E"
"""
"""Says 0x1d when it begins: linkers and shells like to write warnings first."""

SERVE = (
    _COMMON
    + r"""
one() {
  v=; l=
  if [ -r "$1" ]; then while IFS= read -r l; do v=$v$l$N; done 2>/dev/null <"$1"; v=$v$l; fi
  [ -n "$v" ] || v=$(cat "$1" 2>&1) || v="!${v##*: }"
  out=$out$v$M
}
while IFS=' ' read -r verb words; do
  now
  out="$clock$M"
  case $verb in
  cat) for f in $words; do one "$f"; done ;;
  ls) for f in $words; do [ -e "$f" ] && out=$out$f$M; done ;;
  run) v=$( (eval "$words") 2>&1 </dev/null) || v="!$v"; out=$out$v$M ;;
  esac
  say "$out$E"
done
"""
)
"""Answers a request a line: clock, MARK, records that each end with MARK, then the byte 0x1d."""

PROGRAM = (
    _COMMON
    + r"""
exec 3>&1
while IFS= read -r l; do
  if [ "$l" = clock ]; then now; say "$clock$N" >&3; else say "$l$N"; fi
done | PROGRAM 2>&1 | { while IFS= read -r l; do now; say "$clock $l$N"; done; say "$E$N"; }
"""
)
"""Stamps the lines of PROGRAM, feeds it those that come, and says when it has ended with a line of the byte 0x1d."""
