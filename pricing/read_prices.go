package pricing

import (
	"strings"

	"github.com/tollwire/tollwire/llm"
)

func (r *reader) add(n *node) *draftAdd {
	a := &draftAdd{}
	keys := r.rateKeys(&a.rates)
	keys["models"] = func(n *node) { a.models = r.matcher(n) }
	keys["source"] = func(n *node) { r.text(n) }
	r.object(n, keys)
	return a
}

// whenKeys are the keys of a condition.
func (r *reader) whenKeys(w *draftWhen) map[string]func(*node) {
	instant := func(to *int64) func(*node) {
		return func(n *node) {
			t, err := parseInstant(r.text(n))
			if err != nil {
				r.fail(n, "%v", err)
			}
			*to = t.Unix()
		}
	}
	return map[string]func(*node){
		"from":     instant(&w.from),
		"until":    instant(&w.until),
		"tier":     func(n *node) { w.tiers = r.texts(n) },
		"region":   func(n *node) { w.regions = r.texts(n) },
		"zone":     func(n *node) { r.zone(n); w.zone = n.text },
		"calendar": func(n *node) { w.calendar = r.text(n) },
		"hours": func(n *node) {
			w.hours = r.text(n)
			if _, _, err := parseHours(w.hours); err != nil {
				r.fail(n, "%v", err)
			}
		},
		"days": func(n *node) {
			for _, name := range r.texts(n) {
				day, ok := dayNames[name]
				if !ok {
					r.fail(n, "unknown day %q: want mon … sun, weekday, weekend, holiday", clip(name))
				}
				w.days |= day
			}
		},
		"month_tokens_over": func(n *node) { w.volume = r.count(n) },
	}
}

// rateKeys are the keys of prices, by what a price is for.
func (r *reader) rateKeys(to *rates) map[string]func(*node) {
	block := func(scale int, divide uint64) func(*node) {
		return func(n *node) { r.rates(n, to, scale, divide) }
	}
	return map[string]func(*node){
		"per_mtok":     block(moneyDecimals-6, 1),
		"per_thousand": block(moneyDecimals-3, 1),
		"each":         block(moneyDecimals, 1),
		"per_minute":   block(moneyDecimals, 60),
		"per_hour":     block(moneyDecimals, 3600),
		"tools_per_thousand": func(n *node) {
			to.tools = map[string]Money{}
			r.pairs(n, func(key, value *node) { to.tools[key.text] = r.number(value, moneyDecimals-3) })
		},
	}
}

func (r *reader) rates(n *node, to *rates, scale int, divide uint64) {
	r.pairs(n, func(key, value *node) {
		class, ok := llm.ClassOf(key.text)
		if !ok {
			r.fail(key, "unknown class %q: known are %s", clip(key.text), classList())
			return
		}
		if divide != 1 && class != llm.Seconds {
			r.fail(key, "only seconds have a price by time")
			return
		}
		if to.own&(1<<class) != 0 {
			r.fail(key, "%s has a price already", key.text)
			return
		}
		if value.kind != mapNode {
			to.set(class, r.number(value, scale).MulDiv(1, divide))
			return
		}
		sized := map[string]Money{}
		r.pairs(value, func(key, value *node) { sized[strings.ToLower(key.text)] = r.number(value, scale) })
		if to.sized == nil {
			to.sized = map[llm.Class]map[string]Money{}
		}
		to.sized[class] = sized
		if class != llm.Images && class != llm.Searches && class != llm.Requests {
			r.fail(key, "only images, searches and requests have a price by size")
		}
	})
}

func classList() string {
	var names []string
	for c := range llm.NumClasses {
		names = append(names, c.String())
	}
	return strings.Join(names, ", ")
}

func (r *reader) card(n *node) *draftCard {
	c := &draftCard{place: r.place(n)}
	c.draftWhen.place, c.draftRates.place = c.place, c.place
	keys := r.whenKeys(&c.draftWhen)
	for k, f := range r.rateKeys(&c.rates) {
		keys[k] = f
	}
	keys["currency"] = func(n *node) { c.currency = r.text(n) }
	keys["source"] = func(n *node) { c.source = r.text(n) }
	keys["above"] = func(n *node) {
		r.list(n, func(n *node) {
			s := &draftStep{draftRates: draftRates{place: r.place(n)}}
			keys := r.rateKeys(&s.rates)
			keys["input_tokens"] = func(n *node) { s.over = float64(r.count(n)) }
			keys["marginal"] = func(n *node) { s.marginal = r.flag(n) }
			r.object(n, keys)
			if last := len(c.steps) - 1; s.over == 0 || last >= 0 && s.over <= c.steps[last].over {
				r.fail(n, "input_tokens must be above 0 and grow from step to step")
			} else if last >= 0 && s.marginal != c.steps[last].marginal {
				r.fail(n, "steps of one price are all marginal or none is")
			}
			c.steps = append(c.steps, s)
		})
	}
	r.object(n, keys)
	return c
}

func (r *reader) adjust(n *node) *draftAdjust {
	a := &draftAdjust{}
	a.draftWhen.place = r.place(n)
	a.classes = allTokens
	keys := r.whenKeys(&a.draftWhen)
	keys["models"] = func(n *node) { a.models = r.matcher(n) }
	keys["times"] = func(n *node) { a.times = r.factor(n) }
	keys["source"] = func(n *node) { r.text(n) }
	keys["classes"] = func(n *node) {
		a.classes = 0
		for _, name := range r.texts(n) {
			class, ok := llm.ClassOf(name)
			if !ok {
				r.fail(n, "unknown class %q: known are %s", clip(name), classList())
			}
			a.classes |= 1 << class
		}
	}
	r.object(n, keys)
	if a.times == 0 {
		r.fail(n, "an adjustment needs times")
	}
	return a
}

func (r *reader) derive(n *node) *derive {
	d := &derive{class: llm.NumClasses, from: llm.NumClasses}
	class := func(to *llm.Class) func(*node) {
		return func(n *node) {
			c, ok := llm.ClassOf(r.text(n))
			if !ok {
				r.fail(n, "unknown class %q: known are %s", clip(n.text), classList())
				return
			}
			*to = c
		}
	}
	r.object(n, map[string]func(*node){
		"class":  class(&d.class),
		"from":   class(&d.from),
		"times":  func(n *node) { d.times = r.factor(n) },
		"models": func(n *node) { d.models = r.matcher(n) },
		"source": func(n *node) { r.text(n) },
	})
	if d.class == llm.NumClasses || d.from == llm.NumClasses || d.times == 0 {
		r.fail(n, "a derived price needs class, from and times")
	}
	return d
}
