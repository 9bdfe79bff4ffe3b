package pricing

// Hourly is what a machine of one's own costs: a node, an accelerator, a share of one.
type Hourly struct {
	Fixed    Money // an hour, busy or not
	Variable Money // an hour in which it serves, on top: power, metered licences
}

// Hourly returns what the provider's machine costs, and false where the config does
// not say or it is not self-hosted.
func (b *Book) Hourly(provider string) (Hourly, bool) {
	p := b.byName[lower(provider)]
	if p == nil || p.hourly == nil {
		return Hourly{}, false
	}
	return *p.hourly, true
}

// SelfHosted returns the provider that a host and path belong to when it is paid by
// the hour.
func (b *Book) SelfHosted(host, path string) (provider string, ok bool) {
	if p := b.owner(host, path, nil); p != nil && p.selfHosted {
		return p.id, true
	}
	return "", false
}
