package probes

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/flow"
)

// Report is what this kernel and these privileges allow, and what they do not.
type Report struct {
	Kernel       string       `json:"kernel"` // uname -r
	Machine      string       `json:"machine"`
	Features     []Feature    `json:"features"`
	Capabilities []Capability `json:"capabilities"`
	Taps         []TapState   `json:"taps"`
	Sockets      Sockets      `json:"sockets"`
	Processes    []Process    `json:"processes"`
	// Closed is how many processes have mappings or files that may not be looked at
	// for want of privileges.
	Closed int `json:"closed_processes"`
}

// State says whether something may be had.
type State string

const (
	Yes    State = "yes"
	No     State = "no"     // this kernel does not have it
	Denied State = "denied" // the kernel may have it, the privileges do not reach
)

// Feature is something of the kernel that the taps use.
type Feature struct {
	Name    string `json:"name"`
	State   State  `json:"state"`
	Detail  string `json:"detail,omitempty"`  // what the kernel said
	Without string `json:"without,omitempty"` // what it costs; empty when it is there
	Next    string `json:"next,omitempty"`    // what to do about it
}

// Capability is one that some part of the agent uses.
type Capability struct {
	Name    string `json:"name"`
	Held    bool   `json:"held"`
	Needed  bool   `json:"needed"`            // by this kernel
	By      string `json:"by,omitempty"`      // the wider one that includes it, where it is held by that
	For     string `json:"for"`               // what uses it
	Without string `json:"without,omitempty"` // what it costs; empty when it is held or not needed
	Next    string `json:"next,omitempty"`
}

// TapState says whether the kernel accepts a tap's programs.
type TapState struct {
	Tap   string `json:"tap"`
	State State  `json:"state"`
	Error string `json:"error,omitempty"`
}

// Sockets is the way to plaintext sockets.
type Sockets struct {
	Way    string    `json:"way"` // fentry, kprobe, tracepoint, or off
	Error  string    `json:"error,omitempty"`
	Note   string    `json:"note,omitempty"`   // what this way does not see, or why a cheaper one was not taken
	Better []Feature `json:"better,omitempty"` // ways that see more at less cost, and why they are not taken
}

// Process is a program with a TLS implementation in it.
type Process struct {
	PID     uint32 `json:"pid"`
	Name    string `json:"name"`
	TLS     string `json:"tls"`     // openssl, gotls, gnutls, nss, java, mbedtls, wolfssl, s2n, boringssl, aws-lc, rustls
	Library string `json:"library"` // the file that holds it, as the process sees it
	Seen    bool   `json:"seen"`
	Reason  string `json:"reason,omitempty"` // stripped, no_tap, attach_failed, not_loaded, unreadable
	Detail  string `json:"detail,omitempty"`
}

// Usable reports whether anything at all can be captured.
func (r *Report) Usable() bool {
	if r.Sockets.Way != "off" {
		return true
	}
	uprobes := false
	for _, f := range r.Features {
		uprobes = uprobes || f.Name == featureUprobes && f.State == Yes
	}
	for _, t := range r.Taps {
		if uprobes && t.State == Yes && !strings.HasPrefix(t.Tap, "socket.") {
			return true
		}
	}
	return false
}

const featureUprobes = "uprobes"

// Check finds out what Start could do with this configuration, by doing it: taps are
// loaded, put on every file that they know, and taken off again at once. When it
// returns nothing is attached. What stops it midway is ctx.
func Check(ctx context.Context, cfg Config) (*Report, error) {
	cfg.Logger = slog.New(slog.DiscardHandler) // what goes wrong stands in the report
	cfg.Rings, cfg.RingBytes = 1, os.Getpagesize()
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	release, machine, err := kernel()
	if err != nil {
		return nil, err
	}
	unlocked := memlockIsInfinite()
	_ = rlimit.RemoveMemlock() // needed before 5.11, where maps fail without
	c := &checker{cfg: cfg, Report: &Report{
		Kernel:  release,
		Machine: machine,
	}}
	held, err := heldCapabilities()
	if err != nil {
		return nil, err
	}
	c.uprobe = tryUprobe()
	c.capabilities(held, unlocked)
	c.kernel()
	taps := c.taps()
	defer taps.free()
	c.processes(ctx, taps)
	return c.Report, ctx.Err()
}

type checker struct {
	*Report
	cfg    Config
	uprobe error // of the trial
	full   bool  // every capability that this kernel needs is held
}

// feature notes the outcome of a trial.
func (c *checker) feature(name string, err error, without, next string) {
	c.Features = append(c.Features, c.outcome(name, err, without, next))
}

func (c *checker) outcome(name string, err error, without, next string) Feature {
	f := Feature{Name: name, State: c.stateOf(err)}
	if err == nil {
		return f
	}
	f.Detail, f.Without, f.Next = c.oneLine(err), without, next
	if f.State == Denied {
		f.Next = "run as root or with the capabilities below"
	}
	return f
}

// stateOf tells what the kernel lacks from what it forbids.
func (c *checker) stateOf(err error) State {
	switch {
	case err == nil:
		return Yes
	case !c.full && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)):
		return Denied
	}
	return No
}

// oneLine is an error without the verifier's log, and without advice that is for
// older kernels.
func (c *checker) oneLine(err error) string {
	if ve := (*ebpf.VerifierError)(nil); errors.As(err, &ve) && len(ve.Log) > 0 {
		return ve.Cause.Error() + ": " + ve.Log[len(ve.Log)-1]
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	if c.atLeast(5, 11) {
		line = strings.TrimSuffix(line, " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)")
	}
	return line
}

// kernel tries what the taps are made of, each by itself, so that one thing that is
// missing does not hide another.
func (c *checker) kernel() {
	const old = "a newer kernel: "
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	c.feature("BTF of the kernel", err, "nothing is captured: kernel structs are read by CO-RE", "a kernel with CONFIG_DEBUG_INFO_BTF=y; check that /sys is mounted")
	c.feature("ring buffer", features.HaveMapType(ebpf.RingBuf), "nothing is captured", old+"5.8 or later")
	c.feature(featureUprobes, c.uprobe, "no TLS is read", "a kernel with CONFIG_UPROBE_EVENTS=y and CONFIG_PERF_EVENTS=y")
	c.feature("uprobe_multi", features.HaveBPFLinkUprobeMulti(), "a perf event for each function: attaching takes longer", old+"6.6 or later")
	c.feature("probe cookies", features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie), "an answer without a stated length ends when its session is freed (OpenSSL 1.1.1 and 3.0)", old+"5.15 or later")
	c.feature("bpf_loop", features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop), "of one call 384 KiB are read; all of an HTTP/2 connection crosses", old+"5.17 or later")
	c.feature("raw tracepoints", tryRawTracepoint(), "plaintext sockets and the ends of processes are not seen", "a kernel with CONFIG_BPF_EVENTS=y")
	if running().rawPreempts {
		c.feature("perf tracepoints", perfTracepoints(), "while this kernel has preempted a task inside of a program, system calls of stripped TLS, and of sockets without kprobes, are missed", "mount tracefs at /sys/kernel/tracing; for a pod as a hostPath")
	}
	real, err := newRealInodes()
	if err == nil {
		real.close()
	}
	c.feature("iter/task_vma", err, "files behind overlay mounts are told apart by mount: as many traps as pods of one image", old+"5.12 or later")
	watch, err := watchMappings()
	if err == nil {
		watch.free()
	}
	c.feature("PERF_RECORD_MMAP2", err, fmt.Sprintf("programs that start are found after up to %v", sweepEvery), "a kernel with CONFIG_PERF_EVENTS=y; kernel.perf_event_paranoid below 1 or CAP_PERFMON")
	c.feature("/proc/PID/map_files", tryMapFiles(), "files that were deleted or replaced under a running program are not tapped", "CAP_CHECKPOINT_RESTORE; a kernel with CONFIG_CHECKPOINT_RESTORE=y")
	c.feature("host PID namespace", c.tryPIDs(), "processes of the machine are not found, pids do not match", "hostPID: true for a pod, --pid=host for a container")
	c.feature("programs that read memory", features.HaveProgramHelper(ebpf.Kprobe, asm.FnProbeReadKernel), "nothing is captured", "boot with lockdown=integrity or none: lockdown=confidentiality forbids it")
}

// nothing returns a program that does nothing.
func nothing(t ebpf.ProgramType, attach ebpf.AttachType, to string) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tollwire_check", Type: t, AttachType: attach, AttachTo: to, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}

// tryUprobe attaches to the agent's own entry point, which never runs again, in the
// way in which the taps attach: by uprobe_multi where the kernel has it, which asks
// for less than a perf event.
func tryUprobe() error {
	const self = "/proc/self/exe"
	f, err := elf.Open(self)
	if err != nil {
		return fmt.Errorf("open own executable: %w", err)
	}
	defer f.Close()
	off, ok := fileOffset(f, f.Entry)
	if !ok {
		return errors.New("own executable has no entry point")
	}
	multi := features.HaveBPFLinkUprobeMulti() == nil
	attach := ebpf.AttachNone
	if multi {
		attach = ebpf.AttachTraceUprobeMulti
	}
	prog, err := nothing(ebpf.Kprobe, attach, "")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	ex, err := link.OpenExecutable(self)
	if err != nil {
		return fmt.Errorf("open own executable: %w", err)
	}
	var l link.Link
	if multi {
		l, err = ex.UprobeMulti(nil, prog, &link.UprobeMultiOptions{Addresses: []uint64{off}})
	} else {
		l, err = ex.Uprobe("entry", prog, &link.UprobeOptions{Address: off})
	}
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

func tryRawTracepoint() error {
	prog, err := nothing(ebpf.RawTracepoint, ebpf.AttachNone, "")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: prog})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

// tryMapFiles opens one of the agent's own mapped files, which needs the same
// capability as those of others.
func tryMapFiles() error {
	const own = "/proc/self/map_files"
	all, err := os.ReadDir(own)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no mapped file")
	}
	f, err := os.Open(filepath.Join(own, all[0].Name()))
	if err != nil {
		return err
	}
	return f.Close()
}

// rootPIDs is the inode of the first PID namespace (PROC_PID_INIT_INO, linux/proc_ns.h).
const rootPIDs = 0xEFFFFFFC

func (c *checker) tryPIDs() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("look at the PID namespace: %w", err)
	}
	if st.Ino != rootPIDs && c.cfg.Proc == "/proc" {
		return errors.New("/proc is that of another PID namespace")
	}
	return nil
}

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

// atLeast compares the kernel's version.
func (c *checker) atLeast(major, minor int) bool { return atLeast(c.Kernel, major, minor) }

// taps loads every tap and tries the ways to the sockets.
func (c *checker) taps() *Taps {
	t := newTaps(c.cfg)
	err := t.load()
	c.accepted(t, err)
	c.sockets(t, err)
	return t
}

// accepted says which taps the kernel took; none where loading them ended with err.
func (c *checker) accepted(t *Taps, err error) {
	for _, tap := range tlsTaps {
		err := cmp.Or(err, t.refused[tap.source])
		state := TapState{Tap: tap.source.String(), State: c.stateOf(err)}
		if err != nil {
			state.Error = c.oneLine(err)
		}
		c.Taps = append(c.Taps, state)
	}
}

// sockets tries the ways to the sockets, with the maps that are loaded or err.
func (c *checker) sockets(t *Taps, err error) {
	c.Sockets.Way = "off"
	if c.cfg.Sockets == "off" {
		c.Sockets.Error = "turned off by the configuration"
		return
	}
	if err != nil {
		c.Sockets.Error = c.oneLine(err)
		return
	}
	tap, links, err := t.attachSockets()
	for _, l := range links {
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		c.Sockets.Error = c.oneLine(err)
	} else {
		c.Sockets.Way = way(tap)
		c.Sockets.Note = noteOn(tap.source(), c.cfg.Sockets)
	}
	for _, better := range socketTaps {
		if err := t.refused[better.source()]; err != nil {
			f := c.outcome(way(better), err, "", "")
			f.Next = ""
			c.Sockets.Better = append(c.Sockets.Better, f)
		}
	}
}

// noteOn is what is to be said of the way to the sockets that was taken, where the
// configuration asks for a way.
func noteOn(taken flow.Source, asked string) string {
	switch {
	case misses(taken):
		return "while a task is preempted inside of a program, others' calls are missed: gaps of reason missed"
	case taken == flow.SourceSocketKprobe && asked == "auto" && misses(flow.SourceSocketFentry):
		return "before fentry, which misses calls as this kernel preempts its programs"
	}
	return ""
}

// held is what is known of a file: what TLS it holds and whether a tap goes on it.
type held struct {
	Process
	tls    bool
	closed bool // may not be read
}

// processes looks at every file that every process maps, each real file once.
func (c *checker) processes(ctx context.Context, t *Taps) {
	f := newFinder(t)
	if real, err := newRealInodes(); err == nil {
		f.real = real
		defer real.close()
	}
	hidden := closed(c.cfg.Proc)
	files, byReal := make(map[inode]*held), make(map[inode]*held)
	type use struct {
		pid  uint32
		path string
	}
	told := make(map[use]bool)
	eachMapping(c.cfg.Proc, func(m mapping) {
		if int(m.pid) == os.Getpid() || ctx.Err() != nil {
			return
		}
		file := files[m.seen]
		if file == nil {
			if file = c.look(ctx, f, m, byReal); file == nil {
				return // gone meanwhile
			}
			if file.closed { // another process may let it be read
				hidden[m.pid] = true
			} else {
				files[m.seen] = file
			}
		}
		if !file.tls || told[use{m.pid, m.path}] {
			return
		}
		told[use{m.pid, m.path}] = true
		p := file.Process
		p.PID, p.Name, p.Library = m.pid, processName(c.cfg.Proc, m.pid), m.path
		c.Processes = append(c.Processes, p)
	})
	c.Closed = len(hidden)
}

// look finds out what TLS a mapped file holds, and whether a tap goes on it.
func (c *checker) look(ctx context.Context, f *finder, m mapping, byReal map[inode]*held) *held {
	h := &held{}
	file, err := openMapped(c.cfg.Proc, m)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		h.closed = true
		// Most files hold no TLS: only of these is it known without reading them.
		if h.TLS, h.tls = tlsByName(m.path); h.tls {
			h.Reason, h.Detail = "unreadable", c.oneLine(err)
		}
		return h
	}
	defer file.Close()
	target, err := findTarget(file)
	switch {
	case errors.Is(err, errNoTarget):
		k, ok := named(m.path)
		if !ok && mayCarry(m.path) && !isGo(file) {
			k, ok = inText(file, ctx.Done())
		}
		if ok && k.reason == "stripped" {
			target, _, err = findAEAD(file, f.taps.signatures, func(int) error { return ctx.Err() })
		}
		if target == nil || err != nil {
			h.TLS, h.Reason, h.tls = k.name, k.reason, ok
			if k.reason == "stripped" {
				h.Detail = "none of its assembly is known, or not all"
			}
			return h
		}
	case err != nil:
		h.TLS, h.Reason, h.Detail, h.tls = "unknown", "attach_failed", c.oneLine(err), true
		return h
	}
	real, err := f.identify(m, file)
	if known := byReal[real]; err == nil && known != nil {
		return known
	}
	h.TLS, h.tls = target.source.String(), true
	switch err := c.tryTarget(f.taps, file, target); {
	case errors.Is(err, errNotLoaded):
		h.Reason, h.Detail = "not_loaded", "the kernel did not take the tap's programs"
	case err != nil:
		h.Reason, h.Detail = "attach_failed", c.oneLine(err)
	default:
		h.Seen = true
	}
	if err == nil {
		byReal[real] = h
	}
	return h
}

var errNotLoaded = errors.New("not loaded")

// tryTarget puts a target's hooks on the file and takes them off.
func (c *checker) tryTarget(t *Taps, file *os.File, target *target) error {
	for _, h := range target.hooks {
		if t.programs[h.program] == nil {
			return errNotLoaded
		}
	}
	links, err := t.attachFile(file, target)
	return errors.Join(err, closeAll(links))
}

// tlsByName is the TLS of a library that may not be read.
func tlsByName(path string) (string, bool) {
	if k, ok := named(path); ok {
		return k.name, true
	}
	for _, k := range []struct{ prefix, name string }{
		{"libssl.so", "openssl"}, {"libgnutls.so", "gnutls"}, {"libssl3.so", "nss"}, // NSS'; OpenSSL's is libssl.so.3
	} {
		if strings.HasPrefix(filepath.Base(path), k.prefix) {
			return k.name, true
		}
	}
	return "", false
}

// closed returns the processes whose mappings may not be read.
func closed(proc string) map[uint32]bool {
	all := make(map[uint32]bool)
	entries, _ := os.ReadDir(proc)
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		f, err := os.Open(filepath.Join(proc, e.Name(), "maps"))
		if errors.Is(err, fs.ErrPermission) {
			all[uint32(pid)] = true
		}
		f.Close()
	}
	return all
}

func processName(proc string, pid uint32) string {
	dir := filepath.Join(proc, strconv.FormatUint(uint64(pid), 10))
	comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		return strings.TrimSuffix(filepath.Base(exe), " (deleted)")
	}
	return strings.TrimSpace(string(comm))
}
