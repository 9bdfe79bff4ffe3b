package probes

import (
	"bytes"
	"errors"
	"io"
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
	Stack      string `json:"stack"`      // gnutls, nss, java, mbedtls, wolfssl, s2n, boringssl, aws-lc, rustls
	Reason     string `json:"reason"`     // stripped, no_tap, attach_failed
	Detail     string `json:"detail,omitempty"`
}

// unseen is a process that maps a file whose TLS no tap reads.
type unseen struct {
	Unobservable
	file inode // as its mount shows it
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

// byName knows libraries by their names.
var byName = []struct {
	prefix string
	stack
}{
	{"libjvm.so", stack{name: "java", reason: "no_tap"}},
	{"libmbedtls.so", stack{name: "mbedtls", reason: "no_tap"}},
	{"libwolfssl.so", stack{name: "wolfssl", reason: "no_tap"}},
	{"libs2n.so", stack{name: "s2n", reason: "no_tap"}},
}

// carriers are libraries with a TLS stack linked in, by how their names begin: gRPC's of
// Python, Netty's of Java.
var carriers = []string{"cygrpc.", "libnetty_tcnative"}

// mayCarry reports whether a file may have a stack linked in. Programs may; a library is
// its programs' to name, but for carriers.
func mayCarry(path string) bool {
	base := filepath.Base(path)
	return !strings.Contains(base, ".so") || slices.ContainsFunc(carriers, func(c string) bool { return strings.HasPrefix(base, c) })
}

// byText knows what is linked in and stripped by the texts that it carries.
var byText = []struct {
	text string
	stack
}{
	{"aws-lc", stack{name: "aws-lc", reason: "stripped"}},
	{"BoringSSL", stack{name: "boringssl", reason: "stripped"}},
	{"rustls-", stack{name: "rustls", reason: "stripped"}},
}

// Files under minStripped hold no TLS stack of their own; of larger ones at most
// maxStripped is read, at scanRate, so that a node full of large binaries does not notice.
const (
	minStripped = 2 << 20
	maxStripped = 512 << 20
	scanRate    = 200 << 20 // bytes a second
)

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
	st, err := file.Stat()
	if err != nil || st.Size() < minStripped {
		return stack{}, false
	}
	const piece, overlap = 1 << 20, 16
	buf := make([]byte, piece+overlap)
	r := io.LimitReader(file, maxStripped)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		for _, k := range byText {
			if bytes.Contains(buf[:kept+n], []byte(k.text)) {
				return k.stack, true
			}
		}
		if err != nil {
			return stack{}, false
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
		select {
		case <-stop:
			return stack{}, false
		case <-time.After(piece * time.Second / scanRate):
		}
	}
}

// suspect is a mapping of a file that no tap knows what to do with.
type suspect struct {
	mapping
	file *os.File
}

// suspects looks into large files in the background, one at a time.
func (f *finder) suspects() {
	for {
		select {
		case <-f.ctx.Done():
			return
		case s := <-f.suspect:
			f.examine(s)
			s.file.Close()
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
	e, known := f.examined.files[key]
	if !known {
		e, known = f.examined.files[shown]
	}
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
		f.scan() // others may have mapped it meanwhile
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
	k, _ := named(m.path)
	f.learn(m, found{as: as, blind: k})
	// A Go program's stack is crypto/tls, whatever texts it carries.
	if k != (stack{}) || !mayCarry(m.path) || isGo(file) {
		file.Close()
		return
	}
	select {
	case f.suspect <- suspect{m, file}:
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
	f.unseen[m.pid] = unseen{Unobservable{PID: m.pid, Executable: m.path, Stack: k.name, Reason: k.reason, Detail: k.detail}, m.seen}
}

// observed takes back what was noted of a process when this file of its was not tapped.
func (f *finder) observed(m mapping) {
	if u, ok := f.unseen[m.pid]; ok && u.file == m.seen {
		delete(f.unseen, m.pid)
	}
}
