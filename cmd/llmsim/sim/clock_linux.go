package sim

import "golang.org/x/sys/unix"

// Now is CLOCK_MONOTONIC in nanoseconds, the clock of bpf_ktime_get_ns, of Python's
// time.monotonic_ns and of Node's process.hrtime.bigint.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot fail with a valid clock and pointer
	}
	return ts.Nano()
}
