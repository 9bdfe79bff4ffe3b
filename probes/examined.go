package probes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/probes/signature"
)

// examined is what was found in the large files that were looked through, so that none
// is looked through twice.
type examined struct {
	mu    sync.Mutex
	files map[fileState]examination
	// builds are the files that are tapped, by what their linker said. A copy, in another
	// layer of an image say, is known by that and by the code's standing at the same
	// places. Of others nothing is kept, as anybody's file may claim to be another's build.
	builds map[build]examination
}

// maxExamined bounds the large files that are remembered.
const maxExamined = 4096

// fileState is a file as it was when it was looked through. The time is that of the last
// write. Its owner may set that, but the inode's own would change with every new link.
type fileState struct {
	inode
	size, written int64
}

// build tells files that a linker wrote; size is in bytes, as runtimes put programs
// behind a copy of themselves.
type build struct {
	id   string
	size int64
}

// examination is what was found in a large file.
type examination struct {
	stack   stack
	tls     bool
	target  *target // nil: no assembly that is known
	matches []signature.Match
	err     error // why
}

func newExamined() *examined {
	return &examined{files: make(map[fileState]examination), builds: make(map[build]examination)}
}

func stateOf(file *os.File, real inode) (fileState, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fileState{}, fmt.Errorf("stat mapped file: %w", err)
	}
	return fileState{real, st.Size, st.Mtim.Nano()}, nil
}

// of returns what was found in a file that is known by one of these.
func (x *examined) of(files ...fileState) (e examination, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range files {
		if e, ok = x.files[f]; ok {
			break
		}
	}
	return e, ok
}

// sameBuild returns what was found in a file of the same build.
func (x *examined) sameBuild(file io.ReaderAt, b build) (examination, bool) {
	x.mu.Lock()
	e, ok := x.builds[b]
	x.mu.Unlock()
	if !ok {
		return e, false
	}
	f, err := openELF(file)
	if err != nil {
		return e, false
	}
	code := signature.Code(f.File)
	return e, !slices.ContainsFunc(e.matches, func(m signature.Match) bool { return !m.In(file, code) })
}

func (x *examined) remember(e examination, b build, files ...fileState) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.files) >= maxExamined {
		clear(x.files)
		clear(x.builds)
	}
	for _, f := range files {
		x.files[f] = e
	}
	if e.target != nil && b.id != "" {
		x.builds[b] = e
	}
}

const (
	maxNotes     = 4 << 10 // bytes of all notes; a linker's are some hundred
	maxBuildID   = 64      // bytes
	noteBuildID  = 3       // NT_GNU_BUILD_ID
	noteOfBuild  = "GNU\x00"
	noteHeader   = 12 // bytes
	noteAligning = 4
)

// buildOf returns a file's GNU build id; empty when it has none.
func buildOf(file io.ReaderAt, size int64) build {
	f, err := openELF(file)
	if err != nil {
		return build{}
	}
	room := int64(maxNotes)
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || room == 0 {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(p.Open(), room))
		room -= int64(len(b))
		if err != nil {
			return build{}
		}
		for len(b) >= noteHeader {
			name, desc := aligned(binary.LittleEndian.Uint32(b)), aligned(binary.LittleEndian.Uint32(b[4:]))
			kind, rest := binary.LittleEndian.Uint32(b[8:]), b[noteHeader:]
			if name+desc > uint64(len(rest)) {
				break
			}
			if kind == noteBuildID && desc <= maxBuildID && bytes.Equal(rest[:name], []byte(noteOfBuild)) {
				return build{string(rest[name : name+desc]), size}
			}
			b = rest[name+desc:]
		}
	}
	return build{}
}

func aligned(n uint32) uint64 { return (uint64(n) + noteAligning - 1) &^ (noteAligning - 1) }
