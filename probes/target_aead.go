package probes

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/probes/signature"
)

// librarySource are the libraries whose assembly is known, by their names in signatures.
var librarySource = map[string]flow.Source{
	"boringssl": flow.SourceAEADBoringSSL,
	"aws-lc":    flow.SourceAEADAWSLC,
	"ring":      flow.SourceAEADRing,
}

// programs are those at the entries of functions, by what the function does.
var programs = map[signature.Role]string{
	signature.Multiply: "aead_multiply",
	signature.Hash:     "aead_hash",
	signature.Seal:     "aead_seal",
	signature.Open:     "aead_open",
	signature.Counter:  "aead_counter",
	signature.SealBits: "aead_seal_kernel",
	signature.OpenBits: "aead_open_kernel",
	signature.SealAll:  "aead_seal_all",
	signature.OpenAll:  "aead_open_all",
	signature.ChaSeal:  "aead_chacha_seal",
	signature.ChaOpen:  "aead_chacha_open",
}

// beginning are the programs that begin a record, and so have to know the library: to
// their names its is added.
var beginning = map[signature.Role]map[string]string{
	signature.Multiply: {"boringssl": "_boringssl", "aws-lc": "_awslc", "ring": "_ring"},
	signature.Hash:     {"ring": "_ring"},
	signature.ChaSeal:  {"boringssl": "_boringssl", "aws-lc": "_awslc", "ring": "_ring"},
	signature.ChaOpen:  {"boringssl": "_boringssl", "aws-lc": "_awslc", "ring": "_ring"},
}

// returning are the programs at a function's return.
var returning = map[signature.Role]map[string]string{
	signature.Counter: {"ring": "aead_counted"},
	signature.ChaSeal: {"boringssl": "aead_chacha_end", "aws-lc": "aead_chacha_end", "ring": "aead_chacha_end"},
	signature.ChaOpen: {"boringssl": "aead_chacha_end", "aws-lc": "aead_chacha_end", "ring": "aead_chacha_end"},
}

// findAEAD looks through the code of an ELF file for the assembly of stripped TLS
// libraries. pace is called with the bytes that were read and stops it with an error.
// It returns errNoTarget when nothing is found, or too little of a library to read whole
// records; else the functions that make the target, too.
func findAEAD(file io.ReaderAt, set signature.Set, pace func(int) error) (*target, []signature.Match, error) {
	f, err := openELF(file)
	if err != nil {
		return nil, nil, err
	}
	code, left := signature.Code(f.File), uint64(maxStripped)
	for _, s := range code {
		if s.Size > left {
			return nil, nil, fmt.Errorf("%w: more than %d bytes of code", errNoTarget, maxStripped)
		}
		left -= s.Size
	}
	set = set.For(runtime.GOARCH)
	found, _, err := set.Find(file, code, pace)
	if err != nil {
		return nil, nil, err
	}
	libraries := set.Complete(found)
	t, err := aeadTarget(libraries)
	return t, slices.Concat(slices.Collect(maps.Values(libraries))...), err
}

// aeadTarget puts programs on the functions of libraries. Those that begin a record
// come last, so that none is seen in part. A function that two libraries have alike and
// that is linked once is taken as one's where it does a record by itself; else one's records
// could not be told from the other's.
func aeadTarget(libraries map[string][]signature.Match) (*target, error) {
	if len(libraries) == 0 {
		return nil, errNoTarget
	}
	t := &target{ciphertext: true}
	put := func(program, name string, offset uint64, ret bool) {
		i := slices.IndexFunc(t.hooks, func(h hook) bool { return h.program == program })
		if i < 0 {
			i = len(t.hooks)
			t.hooks = append(t.hooks, hook{program: program, ret: ret})
		}
		t.hooks[i].sites = append(t.hooks[i].sites, site{name, offset, plain})
	}
	names := slices.Sorted(maps.Keys(libraries))
	t.source = librarySource[names[0]]
	var last []signature.Match
	taken := make(map[uint64]bool)
	for _, library := range names {
		for _, m := range libraries[library] {
			switch {
			case !taken[m.Offset]:
			case m.Role == signature.ChaSeal, m.Role == signature.ChaOpen:
				continue
			default:
				return nil, fmt.Errorf("%w: %s is of two libraries", errNoTarget, m.Name)
			}
			taken[m.Offset] = true
			for _, ret := range m.Returns {
				put("aead_multiplied", m.Name, m.Offset+uint64(ret), false)
			}
			if program := returning[m.Role][library]; program != "" {
				put(program, m.Name, m.Offset, true)
			}
			if beginning[m.Role][library] != "" {
				last = append(last, m)
				continue
			}
			put(programs[m.Role], m.Name, m.Offset+uint64(m.Probe), false)
		}
	}
	for _, m := range last {
		put(programs[m.Role]+beginning[m.Role][m.Library], m.Name, m.Offset+uint64(m.Probe), false)
	}
	return t, nil
}

// followSockets attaches what follows ciphertext to its socket, once there is a file
// whose assembly is tapped; until then it costs nothing.
func (t *Taps) followSockets() error {
	t.following.Lock()
	defer t.following.Unlock()
	if t.followed {
		return nil
	}
	var joins []link.Link
	for _, p := range []struct{ point, program string }{{"sys_exit", "aead_moved"}, {"sys_enter", "aead_sends"}, {"sys_enter", "aead_closed"}} {
		raw, whole := t.programs[p.program], t.programs[p.program+"_whole"]
		if raw == nil && whole == nil {
			return errors.Join(errors.New("the kernel refused the programs that follow sockets"), closeAll(joins))
		}
		l, err := attachTracepoint("raw_syscalls", p.point, raw, whole)
		if err != nil {
			return errors.Join(err, closeAll(joins))
		}
		joins = append(joins, l)
	}
	t.joins, t.followed = joins, true
	return nil
}

// errTooOld says that this kernel does not have what a tap is made of.
var errTooOld = errors.New("the kernel is too old")

// loadCipherTap is loadAead where it can be: a record that waits has a number of its own,
// given out by an atomic addition that returns what was there before.
func loadCipherTap() (*ebpf.CollectionSpec, error) {
	release, _, err := kernel()
	if err != nil {
		return nil, err
	}
	if !atLeast(release, 5, 12) {
		return nil, fmt.Errorf("stripped TLS is read from Linux 5.12 on, where BPF has fetch-and-add: %w", errTooOld)
	}
	return onTracepoints(loadAead)
}
