package probes

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Unobservable is a process with TLS that no tap reads.
type Unobservable struct {
	PID        uint32 `json:"pid"`
	Executable string `json:"executable"` // the file whose TLS it is
	Stack      string `json:"stack"`      // of byName or byText, or unknown
	Reason     string `json:"reason"`     // stripped, no_tap, attach_failed
	Detail     string `json:"detail,omitempty"`
}

// unseen is a process that maps a file whose TLS no tap reads.
type unseen struct {
	Unobservable
	file  inode // as its mount shows it
	noted time.Time
}

// Unobservable returns the processes with TLS that no tap reads.
func (t *Taps) Unobservable() (all []Unobservable) {
	t.finder.mu.Lock()
	defer t.finder.mu.Unlock()
	for _, u := range t.finder.unseen {
		all = append(all, u.Unobservable)
	}
	return all
}

// stack is a TLS implementation that a file holds and no tap reads.
type stack struct{ name, reason, detail string }

// byName knows libraries, and a runtime that does TLS in what it runs, by their names.
var byName = []struct {
	prefix string
	stack
}{
	{"libjvm.so", stack{name: "java", reason: "no_tap"}},
	{"libmbedtls.so", stack{name: "mbedtls", reason: "no_tap"}},
	{"libwolfssl.so", stack{name: "wolfssl", reason: "no_tap"}},
	{"libs2n.so", stack{name: "s2n", reason: "no_tap"}},
	{"beam.smp", stack{name: "erlang", reason: "no_tap"}},
}

// labels are what TLS derives its keys with, 1.3 by the first (RFC 8446, 7.1) and older ones
// by the second (RFC 5246, 7.4.9). A file that carries one has a TLS stack linked in.
var labels = []string{"c hs traffic", "client finished"}

// byText knows which stack is linked in by a text of its own; of several it is the first.
var byText = []struct {
	text string
	stack
}{
	{"aws-lc", stack{name: "aws-lc", reason: "stripped"}},
	{"BoringSSL", stack{name: "boringssl", reason: "stripped"}},
	{"rustls-", stack{name: "rustls", reason: "stripped"}},
	{"ssl/statem/", stack{name: "openssl", reason: "stripped"}},
	{"GnuTLS", stack{name: "gnutls", reason: "stripped"}},
	{"wolfSSL", stack{name: "wolfssl", reason: "no_tap"}},
	{"mbedtls", stack{name: "mbedtls", reason: "no_tap"}},
	{"sun.security.ssl", stack{name: "java", reason: "no_tap"}}, // compiled ahead of time
}

// textSections are where compilers put texts, the last being that of Java's.
var textSections = []string{".rodata", ".data", ".svm_heap"}

// Smaller files hold no TLS stack of their own: of programs the smallest that was seen has
// 550 KB, and libraries that do a part of TLS for another's stay below. Of larger ones at
// most maxStripped is read, at scanRate, so that a node full of large binaries does not
// notice.
const (
	minProgram  = 256 << 10
	minLibrary  = 2 << 20
	maxStripped = 512 << 20
	scanRate    = 200 << 20 // bytes a second
)

// mayCarry reports whether a file may have a stack linked in. A Go program's is crypto/tls,
// whatever texts it carries.
func mayCarry(path string, file *os.File) bool {
	least := int64(minProgram)
	if isLibrary(path) {
		least = minLibrary
	}
	st, err := file.Stat()
	return err == nil && st.Size() >= least && !isGo(file)
}

func isLibrary(path string) bool { return strings.Contains(filepath.Base(path), ".so") }

// named returns the stack of a library that its name gives away.
func named(path string) (stack, bool) {
	base := filepath.Base(path)
	for _, k := range byName {
		if strings.HasPrefix(base, k.prefix) {
			return k.stack, true
		}
	}
	return stack{}, false
}

// inText looks for a stack's texts in a file.
func inText(file *os.File, stop <-chan struct{}) (stack, bool) {
	missing := slices.Clone(labels)
	for _, k := range byText {
		missing = append(missing, k.text)
	}
	const piece, overlap = 1 << 20, 16
	buf := make([]byte, piece+overlap)
	r, kept := texts(file), 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		missing = slices.DeleteFunc(missing, func(text string) bool { return bytes.Contains(buf[:kept+n], []byte(text)) })
		if err != nil {
			break
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
		select {
		case <-stop:
			return stack{}, false
		case <-time.After(piece * time.Second / scanRate):
		}
	}
	carried := func(text string) bool { return !slices.Contains(missing, text) }
	if !slices.ContainsFunc(labels, carried) {
		return stack{}, false
	}
	for _, k := range byText {
		if carried(k.text) {
			return k.stack, true
		}
	}
	return stack{name: "unknown", reason: "no_tap"}, true
}

// texts reads what an ELF file has of texts, and all of it where it does not say where
// they are. What a runtime has put behind its own is left out, as it may speak of TLS.
func texts(file *os.File) io.Reader {
	f, err := openELF(file)
	if err != nil {
		return bytes.NewReader(nil)
	}
	var all []io.Reader
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && slices.Contains(textSections, s.Name) {
			all = append(all, io.NewSectionReader(file, int64(s.Offset), int64(s.FileSize)))
		}
	}
	if all == nil {
		all = append(all, io.NewSectionReader(file, 0, math.MaxInt64))
	}
	return io.LimitReader(io.MultiReader(all...), maxStripped)
}

// suspect is a mapping of a file that no tap knows what to do with.
type suspect struct {
	mapping
	file *os.File
}

// suspects looks into large files in the background, one at a time: programs first, as
// their requests may be on their way.
func (f *finder) suspects(do turn) {
	for f.ctx.Err() == nil {
		var s suspect
		select {
		case s = <-f.suspect:
		default:
			select {
			case <-f.ctx.Done():
				return
			case s = <-f.suspect:
			case s = <-f.suspectLibrary:
			}
		}
		if !do(s.mapping, func() { f.examine(s); s.file.Close() }) {
			return
		}
	}
}

// examine looks through a large file: for the texts that say which TLS library is
// inside, then for its assembly. A file is looked through once, however it is mounted, and
// a copy of one that is tapped not at all.
func (f *finder) examine(s suspect) {
	// A process that has ended leaves only what its mount shows of the file.
	seen, err := statInode(s.file)
	if err != nil {
		return
	}
	shown, err := stateOf(s.file, seen)
	if err != nil {
		return
	}
	key := shown
	if f.real != nil {
		if real, err := f.real.of(s.mapping); err == nil {
			key.inode = real
		}
	}
	e, known := f.examined.of(key, shown)
	var b build
	if !known {
		b = buildOf(s.file, shown.size)
		if e, known = f.examined.sameBuild(s.file, b); known {
			f.log.Debug("known by its build", "path", s.path, "stack", e.stack.name)
		}
	}
	if !known {
		began := time.Now()
		e = examination{}
		e.stack, e.tls = inText(s.file, f.ctx.Done())
		if e.tls {
			e.target, e.matches, e.err = findAEAD(s.file, f.taps.signatures, f.pace)
		}
		if f.ctx.Err() != nil {
			return
		}
		f.log.Debug("looked through", "path", s.path, "stack", e.stack.name, "tapped", e.target != nil, "took", time.Since(began))
	}
	f.examined.remember(e, b, key, shown)
	as := shown
	as.inode = s.seen
	switch {
	case !e.tls:
	case e.target != nil:
		t, err := f.attach(s.mapping, s.file, e.target, as)
		if errors.Is(err, errNoMapping) {
			f.forget(s.mapping)
			return
		}
		if err != nil {
			f.failed(s.mapping, err, found{as: as, again: true})
			return
		}
		f.learn(s.mapping, found{as: as, tap: t})
		f.scanSoon() // others may have mapped it meanwhile
	default:
		f.learn(s.mapping, found{as: as, blind: e.stack})
	}
}

// pace keeps reading at scanRate, and stops it with the finder.
func (f *finder) pace(n int) error {
	select {
	case <-f.ctx.Done():
		return f.ctx.Err()
	case <-time.After(time.Duration(n) * time.Second / scanRate):
		return nil
	}
}

// suspectLater says what a file without a target is, or hands it to the background, which
// then owns it.
func (f *finder) suspectLater(m mapping, file *os.File, as fileState) {
	k, ok := named(m.path)
	f.learn(m, found{as: as, blind: k})
	if ok || !mayCarry(m.path, file) {
		file.Close()
		return
	}
	queue := f.suspect
	if isLibrary(m.path) {
		queue = f.suspectLibrary
	}
	select {
	case queue <- suspect{m, file}:
	default: // too many at once: looked at again at the next sweep
		file.Close()
		f.forget(m)
	}
}

// forget has the next one that maps a file looked at anew.
func (f *finder) forget(m mapping) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.known, m.seen)
}

func isGo(file *os.File) bool {
	f, err := openELF(file)
	return err == nil && f.Section(".go.buildinfo") != nil
}

// unread notes a file that this process's mapping does not lead to.
func (f *finder) unread(m mapping, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.warn(m, err)
	f.notSeen(m, attachFailed(err))
}

// failed notes a file that is to be tapped and cannot be, for whoever else maps it, too.
func (f *finder) failed(m mapping, err error, k found) {
	f.mu.Lock()
	f.warn(m, err)
	f.mu.Unlock()
	k.blind = attachFailed(err)
	f.learn(m, k)
}

func attachFailed(err error) stack { return stack{"unknown", "attach_failed", err.Error()} }

// warn tells once of a file that cannot be tapped.
func (f *finder) warn(m mapping, err error) {
	if f.warned[m.seen] {
		return
	}
	if len(f.warned) > 1024 {
		clear(f.warned)
	}
	f.warned[m.seen] = true
	f.log.Warn("cannot tap", "path", m.path, "pid", m.pid, "err", err)
}

func (f *finder) notSeen(m mapping, k stack) {
	f.unseen[m.pid] = unseen{Unobservable{PID: m.pid, Executable: m.path, Stack: k.name, Reason: k.reason, Detail: k.detail}, m.seen, time.Now()}
}

// observed takes back what was noted of a process when this file of its was not tapped.
func (f *finder) observed(m mapping) {
	if u, ok := f.unseen[m.pid]; ok && u.file == m.seen {
		delete(f.unseen, m.pid)
	}
}
