//go:build !linux

package sim

import "time"

var start = time.Now()

// Now is nanoseconds on a monotonic clock of this process's own.
func Now() int64 { return int64(time.Since(start)) }
