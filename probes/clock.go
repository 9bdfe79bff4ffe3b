package probes

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/flow"
)

// Now returns the kernel side's time, CLOCK_MONOTONIC.
func Now() flow.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return flow.Time(ts.Nano())
}

// Wall returns t by the wall clock as it stands now: a clock that was set since t
// moves the result with it. Zero for the zero Time.
func Wall(t flow.Time) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Now().Round(0).Add(t.Sub(Now()))
}
