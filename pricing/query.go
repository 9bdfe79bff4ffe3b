package pricing

import (
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Query is all that a price can depend on. Empty strings mean not known.
type Query struct {
	Provider     string // gen_ai.provider.name, or a name the book gives
	Host         string // the endpoint's host, lower case, without the port
	Path         string // without the query
	Method       string // of a priced API's request
	API          string // the priced API it was made to, which is no model; "" for a model's call
	Status       int    // of its answer; 0: not seen
	Model        string // as served (the response's); priced first
	RequestModel string // as asked for; priced when the book does not know Model
	Operation    string // gen_ai.operation.name
	ServiceTier  string // as served
	Region       string // region or geography as served

	At  time.Time // the request's first byte; zero: the date of the book
	End time.Time // the response's last byte; for providers that bill by it; zero: At

	Usage  *llm.Usage
	Failed bool // an error answer: without usage there is nothing to price
	Hints  llm.CostHints

	StatedCost       string // exact decimal in the unit that StatedCostSource implies
	StatedCostSource string // the field or header that said so
}

// FromCall asks for the price of a call made at at.
func FromCall(c *llm.Call, at time.Time) Query {
	q := Query{
		Provider:         c.Provider,
		Host:             c.ServerAddress,
		Path:             c.Path,
		Method:           c.Method,
		API:              c.API,
		Status:           c.Status,
		Model:            c.ResponseModel,
		RequestModel:     c.RequestModel,
		Operation:        c.Operation,
		ServiceTier:      c.ServiceTier,
		Region:           c.Region,
		At:               at,
		Usage:            &c.Usage,
		Failed:           c.Status >= 400 || c.InBandError,
		Hints:            c.Cost,
		StatedCost:       c.StatedCost,
		StatedCostSource: c.StatedCostSource,
	}
	if c.Times.Start != 0 && c.Times.End > c.Times.Start && !at.IsZero() {
		q.End = at.Add(time.Duration(c.Times.End - c.Times.Start))
	}
	return q
}
