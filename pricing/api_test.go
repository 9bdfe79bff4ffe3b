package pricing

import "testing"

func TestPriceAPI(t *testing.T) {
	b := testBook(t)
	if !b.HasAPIs() || new(Book).HasAPIs() {
		t.Error("only one of the books has APIs")
	}
	for _, c := range []struct {
		host, path, method string
		status             int
		at, api, want      string
	}{
		{"maps.example.com", "/geocode/json", "GET", 200, "2026-03-01", "geocoder", "0.005"},
		{"maps.example.com", "/geocode", "GET", 304, "2026-03-01", "geocoder", "0.005"},
		{"maps.example.com", "/geocoder", "GET", 200, "2026-03-01", "", ""},
		{"maps.example.com", "/Geocode", "GET", 200, "2026-03-01", "", ""},
		{"maps.example.com", "/geocode", "POST", 200, "2026-03-01", "", ""},
		{"maps.example.com", "/geocode", "GET", 429, "2026-03-01", "geocoder", "0"},
		{"maps.example.com", "/geocode", "GET", 0, "2026-03-01", "geocoder", ReasonNoAnswer},
		{"eu.search.example", "/", "POST", 500, "2026-03-01", "search", "0.01"},
		{"eu.search.example", "/", "POST", 0, "2026-03-01", "search", "0.01"},
		{"eu.search.example", "/", "POST", 200, "2026-01-31T23:59:59Z", "search", ReasonNoPriceAtTime},
		{"weather.example", "/v2/Forecast/daily", "GET", 200, "2026-03-01", "weather", "0.0125"},
		{"weather.example", "/v2/forecast/daily", "GET", 200, "2026-03-01", "", ""},
	} {
		api := b.API(c.host, c.path, c.method)
		if api != c.api {
			t.Errorf("%+v: %q", c, api)
		}
		if api == "" {
			continue
		}
		p := b.Price(Query{API: api, Host: c.host, Path: c.path, Method: c.method, Status: c.status, At: at(t, c.at)})
		switch got := p.USD.String(); {
		case p.Version == "", p.Priced() != (p.Source == SourceOverride),
			p.Priced() && got != c.want, !p.Priced() && p.Unpriced != c.want:
			t.Errorf("%+v: %+v", c, p)
		}
	}
}
