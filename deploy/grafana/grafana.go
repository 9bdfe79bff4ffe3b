// Command grafana writes the dashboards beside it: dashboards.go says what they show,
// this file how Grafana wants it.
//
//go:generate go run .
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

type dashboard struct {
	uid, title, about string
	rows              []row
	plain             bool // without the variables of calls
}

type row struct {
	title  string
	panels []panel
}

type panel struct {
	title, kind, unit string
	width, height     int
	queries           []query
}

type query struct {
	expr, legend string
	instant      bool
}

func q(expr, legend string) query { return query{expr: expr, legend: legend} }

func stat(title, unit, expr string) panel {
	return panel{title, "stat", unit, 4, 4, []query{{expr: expr, instant: true}}}
}

func lines(title, unit string, queries ...query) panel {
	return panel{title, "timeseries", unit, 12, 8, queries}
}

func bars(title, unit, expr, legend string) panel {
	return panel{title, "bargauge", unit, 12, 8, []query{{expr: expr, legend: legend, instant: true}}}
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

type object = map[string]any

var source = object{"type": "prometheus", "uid": "${datasource}"}

// render returns the dashboard as Grafana imports it.
func (d *dashboard) render() ([]byte, error) {
	var panels []object
	id, y := 0, 0
	for _, r := range d.rows {
		id++
		panels = append(panels, object{"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []any{}, "gridPos": grid(0, y, 24, 1)})
		y++
		x, tallest := 0, 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			id++
			panels = append(panels, p.render(id, x, y))
			x, tallest = x+p.width, max(tallest, p.height)
		}
		y += tallest
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(object{
		"uid": d.uid, "title": d.title, "description": d.about, "tags": []string{"tollwire"}, "schemaVersion": 39, "version": 1,
		"editable": true, "graphTooltip": 1, "refresh": "30s", "time": object{"from": "now-3h", "to": "now"}, "timezone": "",
		"templating": object{"list": d.variables()}, "panels": panels,
		"links": []object{{"type": "dashboards", "tags": []string{"tollwire"}, "title": "tollwire", "asDropdown": true, "includeVars": true, "keepTime": true}},
	})
	return b.Bytes(), err
}

func (p *panel) render(id, x, y int) object {
	var targets []object
	for i, q := range p.queries {
		t := object{"refId": string(rune('A' + i)), "datasource": source, "expr": q.expr, "legendFormat": q.legend, "exemplar": !q.instant}
		if q.instant {
			t["instant"], t["range"] = true, false
		} else {
			t["instant"], t["range"] = false, true
		}
		targets = append(targets, t)
	}
	defaults := object{"unit": p.unit, "min": 0}
	options := object{}
	switch p.kind {
	case "timeseries":
		delete(defaults, "min")
		defaults["custom"] = object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false}
		options = object{"legend": object{"displayMode": "table", "placement": "right", "calcs": []string{"mean", "lastNotNull"}}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case "stat":
		options = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "colorMode": "value", "graphMode": "none"}
	case "bargauge":
		options = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "orientation": "horizontal", "displayMode": "basic"}
	}
	return object{
		"id": id, "type": p.kind, "title": p.title, "datasource": source, "gridPos": grid(x, y, p.width, p.height),
		"targets": targets, "fieldConfig": object{"defaults": defaults, "overrides": []any{}}, "options": options,
	}
}

func grid(x, y, w, h int) object { return object{"x": x, "y": y, "w": w, "h": h} }

func (d *dashboard) variables() []object {
	list := []object{{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}}
	if d.plain {
		return list
	}
	for _, v := range []struct{ name, label, key string }{
		{"graph", "Graph", "tollwire_graph"}, {"provider", "Provider", "gen_ai_provider_name"}, {"model", "Model", "gen_ai_request_model"},
	} {
		list = append(list, object{
			"name": v.name, "label": v.label, "type": "query", "datasource": source, "refresh": 2, "sort": 1,
			"query":      object{"qryType": 1, "query": "label_values(tollwire_calls_total," + v.key + ")", "refId": v.name},
			"definition": "label_values(tollwire_calls_total," + v.key + ")",
			"includeAll": true, "multi": true, "allValue": ".*", "current": object{"text": "All", "value": "$__all"},
		})
	}
	return list
}

func main() {
	for _, d := range dashboards() {
		b, err := d.render()
		if err == nil {
			err = os.WriteFile(filepath.Join("dashboards", d.uid+".json"), b, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "grafana:", err)
			os.Exit(1)
		}
	}
}
