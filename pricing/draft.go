package pricing

import (
	"fmt"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// draft is a book as written, before files are merged and names are resolved.
type draft struct {
	date       time.Time
	currencies map[string]uint64 // USD a unit of currency, 1e-9
	calendars  map[string]*calendar
	stated     map[string]unit
	providers  []*draftProvider
	overrides  []*draftOverride
	apis       []*draftAPI
	resources  *Resources
}

type draftAPI struct {
	draftWhen
	api
}

type calendar struct {
	zone     *time.Location
	holidays map[string]bool
}

// place is where something stands, for errors of the second pass.
type place struct {
	file      string
	line, col int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

func (p place) fail(format string, args ...any) error {
	return &Error{File: p.file, Line: p.line, Col: p.col, Reason: fmt.Sprintf(format, args...)}
}

type draftProvider struct {
	place
	id           string
	names, hosts []string
	aliases      map[string]string
	fallback     []string
	hasFallback  bool
	vendors      map[string]string
	currency     string
	billedAtEnd  *bool
	subscription *bool
	selfHosted   *bool
	hourly       *Hourly
	tiers        []string
	stated       map[string]unit
	volume       map[string]uint64
	adjust       []*draftAdjust
	derive       []*derive
	add          []*draftAdd
	models       []*draftModel
}

type draftModel struct {
	place
	id    string
	match *matcher
	cards []*draftCard
	extra []*draftCard // after those of the model it overlays
}

// draftAdd gives cards the prices that they lack.
type draftAdd struct {
	models *matcher
	rates
}

type draftCard struct {
	place
	draftWhen
	draftRates
	steps    []*draftStep
	currency string
	source   string
}

type draftStep struct {
	draftRates
	over     float64
	marginal bool
}

type draftRates struct {
	place
	rates
}

type draftWhen struct {
	when
	place
	hours, zone, calendar string
	days                  uint8
}

type draftAdjust struct {
	draftWhen
	adjust
}

type draftOverride struct {
	draftWhen
	override
	cards []*draftCard
}

// derive gives a class the price of another times a factor where it has none.
type derive struct {
	models      *matcher
	class, from llm.Class
	times       uint64
}
