package pricing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// Warning is a price or rule that reads right but looks wrong.
type Warning struct {
	File  string
	Line  int
	Where string // provider/model
	What  string
}

func (w Warning) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", w.File, w.Line, w.Where, w.What)
}

// Bounds of what looks right.
const (
	farFromFamily = 100 // times the median of the models whose names begin alike
	familySize    = 4   // models that make a family
	dearWrite     = 4   // a cache write against fresh input
	dearOutput    = 50  // output against input
)

// Lint returns what looks wrong, in the book's order.
func (b *Book) Lint() (out []Warning) {
	for _, p := range b.providers {
		medians := p.families()
		for _, m := range p.models {
			warn := func(at place, format string, args ...any) {
				out = append(out, Warning{at.file, at.line, p.id + "/" + m.id, fmt.Sprintf(format, args...)})
			}
			if other := p.lookup(m.id); m.matches(m.id) && other != m {
				warn(m.at, "its own name is priced by %s (%s)", other.id, other.at)
			}
			for i, c := range m.cards {
				if c.until != 0 && c.until <= c.from0() {
					warn(c.at, "ends before it begins")
				}
				for _, later := range m.cards[i+1:] {
					if later.always() && slices.Equal(later.tiers, c.tiers) {
						warn(c.at, "never holds: the price of %s comes after it and always does", later.at)
						break
					}
				}
				c.base.lint(func(format string, args ...any) { warn(c.at, format, args...) }, strings.Contains(m.id, "free"))
				for _, s := range c.steps {
					if r := c.base.own & s.own & (1 << llm.Input); r != 0 && s.usd[llm.Input].Cmp(c.base.usd[llm.Input]) < 0 {
						warn(c.at, "input is cheaper over %.0f tokens", s.over)
					}
				}
				median, in := medians[family(m.id)], c.base.usd[llm.Input]
				if !median.IsZero() && !in.IsZero() {
					if in.Cmp(median.Mul(farFromFamily)) > 0 {
						warn(c.at, "input is over %d times its family's: %s against %s USD/Mtok", farFromFamily, in.Mul(1e6), median.Mul(1e6))
					} else if in.Mul(farFromFamily).Cmp(median) < 0 {
						warn(c.at, "input is under a %dth of its family's: %s against %s USD/Mtok", farFromFamily, in.Mul(1e6), median.Mul(1e6))
					}
				}
			}
		}
		for _, a := range p.adjust {
			if a.models != nil && !slices.ContainsFunc(p.models, func(m *model) bool { return a.models.match(m.id) }) &&
				len(p.vendors)+len(p.fallback) == 0 {
				out = append(out, Warning{a.at.file, a.at.line, p.id, "an adjustment that no model's id matches:" + a.models.words()})
			}
		}
	}
	return out
}

func (m *model) matches(name string) bool { return m.match.match(name) }

func (w *when) from0() int64 { return max(w.from, 0) }

// always reports whether nothing but the tier is a condition.
func (w *when) always() bool {
	return w.from == 0 && w.until == 0 && w.clock == nil && w.volume == 0 && len(w.regions) == 0
}

func (r *rates) lint(warn func(string, ...any), free bool) {
	has := func(c llm.Class) bool { return r.own&(1<<c) != 0 }
	less := func(a, b llm.Class) bool { return has(a) && has(b) && r.usd[a].Cmp(r.usd[b]) < 0 }
	mtok := func(c llm.Class) Money { return r.usd[c].Mul(1e6) }
	in, out, read := llm.Input, llm.Output, llm.CacheRead
	if less(out, read) {
		warn("output is cheaper than reading the cache: %s against %s USD/Mtok", mtok(out), mtok(read))
	}
	if less(in, read) {
		warn("reading the cache is dearer than fresh input: %s against %s USD/Mtok", mtok(read), mtok(in))
	}
	for _, w := range []llm.Class{llm.CacheWrite, llm.CacheWrite5m, llm.CacheWrite1h} {
		if less(w, read) {
			warn("%v is cheaper than reading the cache: %s against %s USD/Mtok", w, mtok(w), mtok(read))
		}
		if has(w) && has(in) && r.usd[w].Cmp(r.usd[in].Mul(dearWrite)) > 0 {
			warn("%v is over %d times fresh input: %s against %s USD/Mtok", w, dearWrite, mtok(w), mtok(in))
		}
	}
	if less(llm.CacheWrite1h, llm.CacheWrite) || less(llm.CacheWrite1h, llm.CacheWrite5m) {
		warn("an hour in the cache is cheaper than five minutes")
	}
	if has(in) && has(out) && !r.usd[in].IsZero() && r.usd[out].Cmp(r.usd[in].Mul(dearOutput)) > 0 {
		warn("output is over %d times input: %s against %s USD/Mtok", dearOutput, mtok(out), mtok(in))
	}
	if has(in) && has(out) && r.usd[in].IsZero() != r.usd[out].IsZero() && !r.usd[in].IsZero() {
		warn("output is free, input is not")
	}
	if has(in) && has(out) && r.usd[in].IsZero() && r.usd[out].IsZero() && !free {
		warn("free, though its name does not say so")
	}
}

// family is what a model's name begins with, up to its first digit.
func family(id string) string {
	if i := strings.IndexAny(id, "0123456789"); i > 0 {
		return id[:i]
	}
	return id
}

// families are the median input prices of names that begin alike.
func (p *provider) families() map[string]Money {
	prices := map[string][]Money{}
	for _, m := range p.models {
		if in := m.cards[len(m.cards)-1].base.usd[llm.Input]; !in.IsZero() {
			f := family(m.id)
			prices[f] = append(prices[f], in)
		}
	}
	out := map[string]Money{}
	for f, all := range prices {
		if len(all) >= familySize {
			slices.SortFunc(all, Money.Cmp)
			out[f] = all[len(all)/2]
		}
	}
	return out
}
