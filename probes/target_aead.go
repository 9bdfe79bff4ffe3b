package probes

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
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

// roleProgram are the programs at the entries of functions; those of roles that are
// not here end in the library's name.
var roleProgram = map[signature.Role]string{
	signature.Seal:    "aead_seal",
	signature.Open:    "aead_open",
	signature.Counter: "aead_counter",
	signature.Hash:    "aead_hash",
	signature.SealAll: "aead_seal_all",
	signature.OpenAll: "aead_open_all",
}

// libraryPrograms are the programs that begin a record, and so have to know the library:
// their names go on with its short one.
var libraryPrograms = map[signature.Role]string{
	signature.Multiply: "aead_multiply_",
	signature.ChaSeal:  "aead_chacha_seal_",
	signature.ChaOpen:  "aead_chacha_open_",
}

var shortNames = map[string]string{"boringssl": "boringssl", "aws-lc": "awslc"}

// findAEAD looks through the code of an ELF file for the assembly of stripped TLS
// libraries. pace is called with the bytes that were read and stops it with an error.
// It returns errNoTarget when nothing is found, or too little of a library to read whole
// records.
func findAEAD(file io.ReaderAt, set signature.Set, pace func(int) error) (t *target, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("read ELF file: %v", p)
		}
	}()
	if !plausible(file) {
		return nil, errNoTarget
	}
	f, err := elf.NewFile(file)
	if err != nil || f.Class != elf.ELFCLASS64 || f.Machine != machine {
		return nil, errNoTarget
	}
	set = set.For(runtime.GOARCH)
	matches, _, err := set.Find(file, signature.Code(f), pace)
	if err != nil {
		return nil, err
	}
	return aeadTarget(set.Complete(matches))
}

// aeadTarget puts programs on the functions of libraries.
func aeadTarget(libraries map[string][]signature.Match) (*target, error) {
	if len(libraries) == 0 {
		return nil, errNoTarget
	}
	t := &target{ciphertext: true}
	put := func(program, name string, offset uint64) {
		i := slices.IndexFunc(t.hooks, func(h hook) bool { return h.program == program })
		if i < 0 {
			i = len(t.hooks)
			t.hooks = append(t.hooks, hook{program: program, ret: program == "aead_chacha_end"})
		}
		t.hooks[i].sites = append(t.hooks[i].sites, site{name, offset, plain})
	}
	var last []signature.Match // what begins a record, so that none is seen in part
	for _, library := range slices.Sorted(maps.Keys(libraries)) {
		t.source = librarySource[library]
		for _, m := range libraries[library] {
			if libraryPrograms[m.Role] != "" {
				last = append(last, m)
				continue
			}
			put(roleProgram[m.Role], m.Name, m.Offset+uint64(m.Probe))
		}
	}
	for _, m := range last {
		for _, ret := range m.Returns {
			put("aead_multiplied", m.Name, m.Offset+uint64(ret))
		}
		if m.Role != signature.Multiply {
			put("aead_chacha_end", m.Name, m.Offset)
		}
		put(libraryPrograms[m.Role]+shortNames[m.Library], m.Name, m.Offset+uint64(m.Probe))
	}
	return t, nil
}

// examined is a file as it was when it was looked through.
type examined struct {
	inode
	size, changed int64
}

func examinedAs(file *os.File, real inode) (examined, error) {
	st, err := file.Stat()
	if err != nil {
		return examined{}, fmt.Errorf("stat mapped file: %w", err)
	}
	return examined{real, st.Size(), st.ModTime().UnixNano()}, nil
}

// followSockets attaches what follows ciphertext to its socket, once there is a file
// whose assembly is tapped; until then it costs nothing.
func (t *Taps) followSockets() error {
	t.following.Lock()
	defer t.following.Unlock()
	if t.followed {
		return nil
	}
	for _, p := range []struct{ point, program string }{{"sys_exit", "aead_moved"}, {"sys_enter", "aead_closed"}} {
		program := t.programs[p.program]
		if program == nil {
			return errors.New("the kernel refused the programs that follow sockets")
		}
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.point, Program: program})
		if err != nil {
			return fmt.Errorf("attach to %s: %w", p.point, err)
		}
		t.joins = append(t.joins, l)
	}
	t.followed = true
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
	return loadAead()
}
