package e2e

import (
	"testing"

	published "github.com/tollwire/tollwire/internal/programs"
)

// TestCipherTap: a program whose TLS is inside and stripped, as it comes from npm.
// make test-cipher-tap runs all that are known.
func TestCipherTap(t *testing.T) {
	cache, err := published.Cache()
	if err != nil {
		t.Fatal(err)
	}
	s := start(t)
	bun, err := published.Published[0].Install(s.ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
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
