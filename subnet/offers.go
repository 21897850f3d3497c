package subnet

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Offer is a backend by which a host can be reached right now beside that of its lease.
type Offer struct {
	Type string // as Attrs.BackendType
	Data string // as Attrs.BackendData
}

// Bounds of what one lease offers, in bytes. A host that changes its backend offers one more.
const (
	maxOffers     = 4
	maxOfferData  = 4 << 10
	maxOffersText = 8 << 10
)

// offer is an Offer in a record.
type offer struct {
	Type string          `json:"Type"`
	Data json.RawMessage `json:"Data,omitempty"`
}

// flawed ends the text of offers of which some were invalid.
const flawed = "null]"

// OffersText returns offers as Attrs.Offers has them; empty for none.
func OffersText(offers []Offer) string { return offersText(offers, false) }

func offersText(offers []Offer, bad bool) string {
	if len(offers) == 0 && !bad {
		return ""
	}
	var all []*offer
	for _, o := range offers {
		all = append(all, &offer{o.Type, json.RawMessage(o.Data)})
	}
	if bad {
		all = append(all, nil)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(all) != nil {
		return "[" + flawed // data that is no JSON
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ReadOffers reads the list of offers in a record. It returns the text of those that are valid; an invalid one is no
// harm to the others, and BadOffers tells of it.
func ReadOffers(text []byte) string {
	if text = bytes.TrimSpace(text); len(text) == 0 || string(text) == "null" {
		return ""
	}
	var items []json.RawMessage
	if len(text) > maxOffersText || json.Unmarshal(text, &items) != nil {
		return "[" + flawed
	}
	var good []Offer
	bad := len(items) > maxOffers
	for _, item := range items[:min(len(items), maxOffers)] {
		if o, ok := readOffer(item); ok && !slices.ContainsFunc(good, func(g Offer) bool { return g == o }) {
			good = append(good, o)
		} else {
			bad = true
		}
	}
	return offersText(good, bad)
}

func readOffer(text []byte) (Offer, bool) {
	var in offer
	if json.Unmarshal(text, &in) != nil {
		return Offer{}, false
	}
	o := Offer{Type: strings.ToLower(in.Type)}
	if o.Type == "" || len(o.Type) > maxKind || len(in.Data) > maxOfferData {
		return Offer{}, false
	}
	if len(in.Data) > 0 && string(in.Data) != "null" {
		var b bytes.Buffer
		if json.Compact(&b, in.Data) != nil {
			return Offer{}, false
		}
		o.Data = b.String()
	}
	return o, true
}

// BadOffers reports whether some of what the record offers was invalid.
func (a Attrs) BadOffers() bool { return strings.HasSuffix(a.Offers, flawed) }

// Ways returns all by which the host can be reached: what the lease names, and then what it offers beside that.
func (a Attrs) Ways() []Offer {
	ways := []Offer{{a.BackendType, a.BackendData}}
	if a.Offers == "" {
		return ways
	}
	var all []*offer
	_ = json.Unmarshal([]byte(a.Offers), &all) // ReadOffers has made it
	for _, o := range all {
		if o != nil {
			ways = append(ways, Offer{o.Type, string(o.Data)})
		}
	}
	return ways
}

// By returns the lease as it is for one of its ways.
func (l Lease) By(o Offer) Lease {
	l.BackendType, l.BackendData, l.Offers = o.Type, o.Data, ""
	return l
}
