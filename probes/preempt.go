package probes

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// While a task is preempted inside of a BPF program, the kernel leaves that program out
// for every other task of the CPU. It preempts those of fentry where it preempts itself,
// and since Linux 7.0, which always does, those of raw tracepoints too; those of kprobes
// and of perf's tracepoints never. These it leaves out while a task is preempted in bpf(2)
// with a map, which is far more seldom (settings).

// alwaysPreempts are the versions, as uname -v says them, of kernels that were built to
// preempt themselves.
var alwaysPreempts = regexp.MustCompile(`\bPREEMPT(_RT|_LAZY)?\b`)

// preempts reports whether the kernel preempts fentry programs. One that is PREEMPT_DYNAMIC
// says in which mode it is, where that is to be seen.
func preempts(release, version, mode string) bool {
	return rawPreempts(release) || alwaysPreempts.MatchString(version) || mode == "full" || mode == "lazy"
}

// preemptMode is the mode of a PREEMPT_DYNAMIC kernel: none, voluntary, full, lazy; "" where
// neither debugfs nor the kernel's command line says it.
func preemptMode() string {
	modes, _ := os.ReadFile("/sys/kernel/debug/sched/preempt") // "none (voluntary) full"
	for mode := range strings.FieldsSeq(string(modes)) {
		if strings.HasPrefix(mode, "(") {
			return strings.Trim(mode, "()")
		}
	}
	mode := ""
	options, _ := os.ReadFile("/proc/cmdline")
	for option := range strings.FieldsSeq(string(options)) {
		if v, ok := strings.CutPrefix(option, "preempt="); ok {
			mode = v // the last one holds
		}
	}
	return mode
}

// rawPreempts reports whether the kernel preempts the programs of raw tracepoints.
func rawPreempts(release string) bool { return atLeast(release, 7, 0) }

// running is what the running kernel does.
var running = sync.OnceValue(func() (k struct{ preempts, rawPreempts bool }) {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return k
	}
	release := unix.ByteSliceToString(name.Release[:])
	k.preempts = preempts(release, unix.ByteSliceToString(name.Version[:]), preemptMode())
	k.rawPreempts = rawPreempts(release)
	return k
})

// perfTracepoints says why tracepoints are not had by perf; nil where they are.
var perfTracepoints = sync.OnceValue(func() error {
	prog, err := nothing(ebpf.TracePoint, ebpf.AttachNone, "")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	l, err := link.Tracepoint("raw_syscalls", "sys_exit", prog, nil)
	if err != nil {
		return fmt.Errorf("attach by perf: %w", err)
	}
	return l.Close()
})

// byPerf reports whether tracepoints are to be had by perf: it costs more and wants
// tracefs, so only where the kernel preempts the programs of raw ones.
func byPerf() bool { return running().rawPreempts && perfTracepoints() == nil }

// onTracepoints is an object with those of its programs on tracepoints that are to be
// attached here.
func onTracepoints(load func() (*ebpf.CollectionSpec, error)) (*ebpf.CollectionSpec, error) {
	spec, err := load()
	if err != nil {
		return nil, err
	}
	unused := ebpf.TracePoint
	if byPerf() {
		unused = ebpf.RawTracepoint
	}
	for name, p := range spec.Programs {
		if p.Type == unused {
			delete(spec.Programs, name)
		}
	}
	return spec, nil
}

// attachTracepoint runs whole by perf's tracepoint where that is needed, else raw.
func attachTracepoint(group, name string, raw, whole *ebpf.Program) (link.Link, error) {
	var l link.Link
	var err error
	if byPerf() {
		l, err = link.Tracepoint(group, name, whole, nil)
	} else {
		l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: raw})
	}
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", name, err)
	}
	return l, nil
}
