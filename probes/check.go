package probes

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/cilium/ebpf"
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
	c, err := checkKernel(cfg)
	if err != nil {
		return nil, err
	}
	taps := c.taps()
	defer taps.free()
	c.processes(ctx, taps)
	return c.Report, ctx.Err()
}

// checkKernel finds out what the kernel and the privileges are, before taps are loaded.
func checkKernel(cfg Config) (*checker, error) {
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
	return c, nil
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
