package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/llm"
)

// TestEstimates hides the stated usage from the decoder and holds the estimates
// against it.
func TestEstimates(t *testing.T) {
	v := vendors.All(content.Config{})
	type ratios struct{ in, out []float64 }
	all := map[string]*ratios{}
	err := Load(corpora(t), func(c Case) error {
		w := c.Want
		if !w.UsagePresent || !w.UsageSure || w.Error {
			return nil
		}
		hidden := *c.Entry
		hidden.Response.Body = bytes.ReplaceAll(hidden.Response.Body, []byte(`"usage"`), []byte(`"hidden"`))
		if bytes.Equal(hidden.Response.Body, c.Entry.Response.Body) || !strings.Contains(w.Family, "chat") && !strings.Contains(w.Family, "anthropic") {
			return nil
		}
		got, err := Decode(v, Case{&hidden, w})
		if err != nil || got == nil || got.Completeness != llm.Estimated {
			return err
		}
		family := ""
		if w.ResponseModel != nil {
			family = *w.ResponseModel
		}
		asked := string(c.Entry.Request.Body)
		tools := strings.Contains(asked, `"tools"`) || strings.Contains(asked, `"functions"`)
		if strings.Contains(asked, "image") || w.Usage["reasoning"] > 0 || len(got.Cost.ToolRequests) > 0 {
			return nil // pictures, thoughts and pages are not seen as text
		}
		if tools {
			family = "tools " + family
		}
		family = w.Family + " " + family[:min(len(family), 20)]
		r := all[family]
		if r == nil {
			r = new(ratios)
			all[family] = r
		}
		if in := w.Usage["input"] + w.Usage["cache_read"] + w.Usage["cache_write"] + w.Usage["cache_write_5m"] + w.Usage["cache_write_1h"]; in > 0 {
			n, _ := got.Usage.InputTotal()
			r.in = append(r.in, n/in)
		}
		if out := w.Usage["output"] + w.Usage["reasoning"]; out > 20 {
			n, _ := got.Usage.OutputTotal()
			r.out = append(r.out, n/out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	var in, out []float64
	for _, name := range names {
		r := all[name]
		if !strings.Contains(name, " tools ") {
			in, out = append(in, r.in...), append(out, r.out...)
		}
		if len(r.in) > 5 {
			t.Logf("%-40s %4d in %s   out %s", name, len(r.in), quartiles(r.in), quartiles(r.out))
		}
	}
	t.Logf("without tools: in %s, out %s", quartiles(in), quartiles(out))
	for what, r := range map[string][]float64{"in": in, "out": out} {
		if m := r[len(r)/2]; m < 0.85 || m > 1.15 {
			t.Errorf("tokens %s are estimated at %.2f of what was stated, in the middle", what, m)
		}
	}
}

func quartiles(r []float64) string {
	if len(r) == 0 {
		return "none"
	}
	slices.Sort(r)
	s := make([]string, 3)
	for i, q := range []int{1, 2, 3} {
		s[i] = fmt.Sprintf("%.2f", r[len(r)*q/4])
	}
	return strings.Join(s, " ")
}
