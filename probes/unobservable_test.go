package probes

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/probes/signature"
)

// lookThrough is what the finder says of a process that maps a file.
func lookThrough(t *testing.T, path string) stack {
	t.Helper()
	taps := newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: t.TempDir()})
	var err error
	if taps.signatures, err = signature.Published(); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(taps.cfg.Proc, "42", "root")
	if err := errors.Join(os.Mkdir(filepath.Dir(root), 0o755), os.Symlink("/", root)); err != nil {
		t.Fatal(err)
	}
	f := newFinder(taps)
	f.ctx = t.Context()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	seen, err := statInode(file)
	if err != nil {
		t.Fatal(err)
	}
	f.look(mapping{pid: 42, seen: seen, path: path})
	select {
	case s := <-f.suspect:
		f.examine(s)
		s.file.Close()
	case s := <-f.suspectLibrary:
		f.examine(s)
		s.file.Close()
	default:
	}
	u := f.unseen[42]
	return stack{name: u.Stack, reason: u.Reason}
}

// TestStrippedOpenSSL: OpenSSL that is linked in without names is named; what has its
// cryptography alone does no TLS.
func TestStrippedOpenSSL(t *testing.T) {
	for _, c := range []struct {
		name, source string
		args         []string
		want         stack
	}{
		{"TLS", `#include <openssl/ssl.h>
int main(void) { SSL *s = SSL_new(SSL_CTX_new(TLS_client_method())); return SSL_connect(s) + SSL_read(s, 0, 0) + SSL_write(s, 0, 0); }`,
			[]string{"-s", "-l:libssl.a", "-l:libcrypto.a"}, stack{name: "openssl", reason: "stripped"}},
		{"cryptography", `#include <openssl/evp.h>
int main(void) { return EVP_EncryptInit(EVP_CIPHER_CTX_new(), EVP_aes_256_gcm(), 0, 0); }`,
			[]string{"-s", "-l:libcrypto.a"}, stack{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lookThrough(t, linked(t, c.source, c.args...)); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// TestTextsOfStacks: a file is named by the texts in it that make it one with TLS.
func TestTextsOfStacks(t *testing.T) {
	for name, c := range map[string]struct {
		text, section, file string
		size                int
		want                stack
	}{
		"TLS 1.3":                   {`c hs traffic\0BoringSSL`, "", "program", minProgram, stack{name: "boringssl", reason: "stripped"}},
		"TLS 1.2":                   {`mbedtls_x\0client finished`, "", "program", minProgram, stack{name: "mbedtls", reason: "no_tap"}},
		"two stacks":                {`wolfSSL\0client finished\0rustls-0.23`, "", "program", minProgram, stack{name: "rustls", reason: "stripped"}},
		"of nobody that is known":   {`client finished`, "", "program", minProgram, stack{name: "unknown", reason: "no_tap"}},
		"Java, ahead of time":       {`sun.security.ssl\0c hs traffic`, ".svm_heap", "program", minProgram, stack{name: "java", reason: "no_tap"}},
		"no TLS":                    {`BoringSSL\0aws-lc`, "", "program", minProgram, stack{}},
		"what is put behind":        {`client finished`, ".payload", "program", minProgram, stack{}},
		"a small program":           {`client finished`, "", "program", 0, stack{}},
		"a library":                 {`client finished\0GnuTLS`, "", "m.abi3.so", minLibrary, stack{name: "gnutls", reason: "stripped"}},
		"a library that is a part":  {`client finished`, "", "libsoftokn3.so", minLibrary / 2, stack{}},
		"the last text of a piece":  {strings.Repeat("x", 1<<20) + `client finished`, "", "program", minLibrary, stack{name: "unknown", reason: "no_tap"}},
		"one that two pieces share": {strings.Repeat("x", 1<<20+16-8) + `client finished`, "", "program", minLibrary, stack{name: "unknown", reason: "no_tap"}},
	} {
		t.Run(name, func(t *testing.T) {
			source := `const char text[] ` + map[bool]string{true: `__attribute__((section("` + c.section + `")))`}[c.section != ""] +
				` = "` + c.text + `"; const char more[` + strconv.Itoa(c.size+1) + `] = "more"; int main(void) { return 0; }`
			path := filepath.Join(t.TempDir(), c.file)
			if err := os.Rename(linked(t, source), path); err != nil {
				t.Fatal(err)
			}
			if got := lookThrough(t, path); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// TestInnocents: of what Debian has installed here, nothing is named that does no TLS.
func TestInnocents(t *testing.T) {
	if testing.Short() {
		t.Skip("reads through all of /usr/bin")
	}
	// These do TLS by themselves.
	stacks := []string{"busybox"}
	looked := 0
	for _, path := range packaged(t) {
		if e, err := os.Lstat(path); err != nil || !e.Mode().IsRegular() {
			continue
		}
		looked++
		got := lookThrough(t, path)
		if got != (stack{}) && got.reason != "attach_failed" && !slices.Contains(stacks, filepath.Base(path)) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if looked < 100 {
		t.Errorf("%d files were looked into", looked)
	}
}

// packaged are the programs that came in packages, not what else somebody put beside them.
func packaged(t *testing.T) (paths []string) {
	t.Helper()
	lists, err := filepath.Glob("/var/lib/dpkg/info/*.list")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.Lines(string(b)) {
			path = strings.TrimSuffix(path, "\n")
			switch filepath.Dir(path) {
			case "/bin", "/sbin", "/usr/bin", "/usr/sbin":
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// TestUnobservable: a process is named while a file of its is not tapped, and no longer.
func TestUnobservable(t *testing.T) {
	f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: t.TempDir()}))
	lib, other := inode{1, 2}, inode{1, 3}
	first, second := mapping{pid: 42, seen: lib, path: "/lib"}, mapping{pid: 43, seen: lib, path: "/lib"}
	want := func(what string, pids ...uint32) {
		t.Helper()
		named := f.unseen
		if len(named) != len(pids) {
			t.Errorf("%s: %v, want %v", what, named, pids)
		}
		for _, pid := range pids {
			if u := named[pid]; u.PID != pid || u.Reason != "attach_failed" || u.Executable != "/lib" || u.Detail != "no" {
				t.Errorf("%s: %+v", what, u)
			}
		}
	}
	by := func(of inode, pids ...uint32) users {
		all := users{of: {}}
		for _, pid := range pids {
			all[of][pid] = struct{}{}
		}
		return all
	}
	f.unread(first, errors.New("no"))
	f.unread(second, errors.New("no"))
	want("both fail", 42, 43)
	f.swept(by(lib, 42, 43), time.Now())
	want("both go on", 42, 43)
	began := time.Now()
	f.unread(second, errors.New("no"))
	f.swept(by(lib, 42), began)
	want("the second has begun to map it when the scan was past it", 42, 43)

	tap := &tapped{procs: make(map[uint32]time.Time), spaces: make(map[uint64]time.Time)}
	f.learn(first, found{tap: tap})
	want("the first is tapped", 43)
	f.mapped(second, false)
	want("and so is the second")

	f.unread(first, errors.New("no"))
	f.learn(mapping{pid: 42, seen: other, path: "/other"}, found{tap: tap})
	want("another file of its is tapped", 42)
	f.swept(by(other, 42), time.Now())
	want("the number is another process's")

	tap.released = true
	if f.told(second, &found{tap: tap}) {
		t.Error("told of a tap that has been let go of")
	}
}

// TestUnreadable: of a file that cannot be tapped every process is named that maps it.
func TestUnreadable(t *testing.T) {
	f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: t.TempDir()}))
	m := mapping{pid: 42, seen: inode{1, 2}, path: "/program"}
	f.failed(m, errors.New("no"), found{})
	m.pid = 43
	f.mapped(m, false)
	if len(f.unseen) != 2 || f.unseen[43].Detail != "no" || f.unseen[43].Reason != "attach_failed" {
		t.Errorf("%+v", f.unseen)
	}
}
