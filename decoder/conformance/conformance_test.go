package conformance

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
)

var all = flag.Bool("all", false, "re-frame every entry of the corpora")

func corpora(t *testing.T) string {
	t.Helper()
	dir, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The misses that there are stand in docs/conformance.md, one by one.
func TestConformance(t *testing.T) {
	r, err := Run(vendors.All(content.Config{}), corpora(t))
	if err != nil {
		t.Fatal(err)
	}
	if r.WrongUnflagged > 0 || float64(r.Exact) < 0.995*float64(r.Sure) {
		var b strings.Builder
		r.Write(&b)
		t.Fatal(b.String())
	}
}

// TestCuts cuts a sample of the answers at every byte; make conformance-cuts takes all.
func TestCuts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	k := newKnife()
	var sum CutReport
	err := Load(corpora(t), func(c Case) error {
		if rnd.IntN(24) != 0 || len(c.Entry.Response.Body) > 64<<10 {
			return nil
		}
		r, err := k.cut(c)
		sum.add(r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range sum.Wrong {
		t.Error(w)
	}
	if sum.Exact == 0 {
		t.Error("no cut was exact: what came after the provider's last word should be")
	}
	t.Logf("%d answers, %d bytes, %d cuts decoded, %d still exact", sum.Answers, sum.Bytes, sum.Decoded, sum.Exact)
}
