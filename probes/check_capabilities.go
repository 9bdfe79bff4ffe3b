package probes

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// heldCapabilities returns the effective set.
func heldCapabilities() (uint64, error) {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return 0, fmt.Errorf("ask for own capabilities: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// admin reports whether uprobes want CAP_SYS_ADMIN, by trying them without it. Where the
// capabilities that they want at least are missing, that is not to be told.
func (c *checker) admin(held uint64) bool {
	const least = 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON
	if held&least != least || features.HaveBPFLinkUprobeMulti() == nil {
		return false
	}
	err := c.uprobe
	if held>>unix.CAP_SYS_ADMIN&1 != 0 {
		tried := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if err := dropEffective(unix.CAP_SYS_ADMIN); err != nil {
				tried <- err
				return
			}
			tried <- tryUprobe()
		}()
		err = <-tried
	}
	return errors.Is(err, unix.EACCES)
}

// dropEffective takes a capability from this thread's effective set.
func dropEffective(bit uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("ask for own capabilities: %w", err)
	}
	data[bit/32].Effective &^= 1 << (bit % 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop a capability: %w", err)
	}
	return nil
}

func memlockIsInfinite() bool {
	var l unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) == nil && l.Cur == unix.RLIM_INFINITY
}

func (c *checker) capabilities(held uint64, unlocked bool) {
	has := func(bit uint) bool { return held>>bit&1 != 0 }
	locked := !c.atLeast(5, 11) && !unlocked
	c.full = true
	for _, k := range []struct {
		bit     uint
		name    string
		needed  bool
		within  bool // CAP_SYS_ADMIN includes it
		use     string
		without string
	}{
		{unix.CAP_BPF, "CAP_BPF", true, true, "load programs, make maps", "nothing is captured"},
		{unix.CAP_PERFMON, "CAP_PERFMON", true, true, "attach programs, read memory in them, hear of new mappings", "nothing is captured"},
		{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", true, false, "look at other users' processes: maps, executable, files", "programs of other users are not found or named"},
		{unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", true, false, "read files of other users", "libraries in closed folders are not tapped, a program's OTEL_SERVICE_NAME is not read"},
		{unix.CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", c.atLeast(5, 9), true, "open mapped files by /proc/PID/map_files", "files that were deleted or replaced under a running program are not tapped"},
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", c.admin(held), false, "kernels before 6.6 with the fix of CVE-2025-38466: attach uprobes", "no TLS is read"},
		{unix.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", locked, false, "kernels before 5.11: lock memory for maps", "maps may not fit RLIMIT_MEMLOCK, and then nothing is captured"},
	} {
		one := Capability{Name: k.name, Held: has(k.bit), Needed: k.needed, For: k.use}
		if !one.Held && k.within && has(unix.CAP_SYS_ADMIN) {
			one.Held, one.By = true, "CAP_SYS_ADMIN"
		}
		if !one.Held && one.Needed {
			c.full = false
			short := strings.TrimPrefix(k.name, "CAP_")
			one.Without = k.without
			one.Next = fmt.Sprintf("systemd: %s in CapabilityBoundingSet; a pod: securityContext.capabilities.add: [%s]; else run as root", k.name, short)
		}
		c.Capabilities = append(c.Capabilities, one)
	}
}
