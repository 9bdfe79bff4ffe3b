package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	published "github.com/tollwire/tollwire/internal/programs"
)

// bun is a program whose TLS is inside and stripped, as it comes from npm: the first time
// that may take longer than a test has.
func bun(t *testing.T) *published.Installed {
	t.Helper()
	cache, err := published.Cache()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	bun, err := published.Published[0].Install(ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
	return bun
}

// TestCipherTap: make test-cipher-tap runs all programs that are known.
func TestCipherTap(t *testing.T) {
	bun, s := bun(t), start(t)
	out, err := bun.Try(s.ctx, s.agent(), s.sim, 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range out.Wrong {
		t.Error(w)
	}
	if !out.Tapped || out.Exact != out.Calls {
		t.Errorf("tapped: %v; %d of %d calls exact", out.Tapped, out.Exact, out.Calls)
	}
}

// TestEncryptionIsNoTLS: a program that encrypts a file with the assembly that TLS uses
// gives no bytes, though what it encrypts looks like a request and is authenticated
// like a record.
func TestEncryptionIsNoTLS(t *testing.T) {
	bun, s := bun(t), start(t)
	a := s.agent()
	if err := bun.Tap(s.ctx, a); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(s.ctx, bun.Path, "run", "testdata/encrypt.mjs", filepath.Join(t.TempDir(), "file")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Fatalf("%v: %s", err, out)
	}
	m := s.scrape(a)
	if n := m.Sum("tollwire_capture_bytes_total", "source", "aead.boringssl", "fate", "decoded"); n != 0 {
		t.Errorf("%.0f bytes were taken for a connection's", n)
	}
	all, err := a.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if strings.HasPrefix(r.Source, "aead.") {
			t.Errorf("a record: %+v", r)
		}
	}
	// The same program's TLS is seen all the while.
	tried, err := bun.Try(s.ctx, a, s.sim, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range tried.Wrong {
		t.Error(w)
	}
}
