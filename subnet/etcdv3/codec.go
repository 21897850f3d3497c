package etcdv3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"flanneld/subnet"
)

// Bounds of a record and its parts, in bytes. A real one has some two hundred; what is larger would fill the memory of
// every host.
const (
	maxValue = 16 << 10
	maxData  = 4 << 10 // of a backend, for one family
	maxText  = 64      // an identity, the name of a backend
)

// value is a record as it stands in etcd. The first five fields are flannel's, in its order; the others are ours and
// are ignored by it.
type value struct {
	PublicIP      string          `json:"PublicIP"`
	PublicIPv6    *string         `json:"PublicIPv6"`
	BackendType   string          `json:"BackendType,omitempty"`
	BackendData   json.RawMessage `json:"BackendData,omitempty"`
	BackendV6Data json.RawMessage `json:"BackendV6Data,omitempty"`
	Identity      string          `json:"ID,omitempty"`
	Host          string          `json:"Host,omitempty"`
	Underlay      string          `json:"Underlay,omitempty"`
	UnderlayV6    string          `json:"UnderlayV6,omitempty"`
	Offers        json.RawMessage `json:"Offers,omitempty"`
	OffersV6      json.RawMessage `json:"OffersV6,omitempty"`
	UDPData       json.RawMessage `json:"UDPData,omitempty"` // BackendData of udp, which has none in flannel's records
}

// Encode returns the value of a record.
func Encode(r subnet.Record) ([]byte, error) {
	// flannel reads a PublicIP in every record.
	v := value{PublicIP: netip.IPv4Unspecified().String(), Identity: r.Identity, Host: r.Host}
	for _, l := range r.Leases {
		if l.BackendType != subnet.UDP {
			v.BackendType = l.BackendType
		}
		if l.Subnet.Addr().Is4() {
			v.PublicIP, v.BackendData, v.Underlay = l.PublicIP.String(), json.RawMessage(l.BackendData), textOf(l.Underlay)
			v.Offers = json.RawMessage(l.Offers)
			if l.BackendType == subnet.UDP {
				v.BackendData, v.UDPData = nil, v.BackendData
			}
			continue
		}
		v.UnderlayV6, v.OffersV6 = textOf(l.Underlay), json.RawMessage(l.Offers)
		text := l.PublicIP.String()
		v.PublicIPv6, v.BackendV6Data = &text, json.RawMessage(l.BackendData)
	}
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// check says which part of a record is too long.
func (v value) check() error {
	for _, part := range []struct {
		name       string
		have, most int
	}{
		{"identity", len(v.Identity), maxText},
		{"backend type", len(v.BackendType), maxText},
		{"backend data", max(len(v.BackendData), len(v.BackendV6Data), len(v.UDPData)), maxData},
	} {
		if part.have > part.most {
			return fmt.Errorf("%s of %d bytes, more than %d", part.name, part.have, part.most)
		}
	}
	return nil
}

// Decode reads a record from its key below PREFIX and its value. The error says what is wrong with it.
func Decode(key string, text []byte) (subnet.Record, error) {
	r := subnet.Record{}
	name, ok := strings.CutPrefix(key, subnet.SubnetsFolder)
	if !ok {
		if name, r.Claim = strings.CutPrefix(key, subnet.ClaimsFolder); !r.Claim {
			return subnet.Record{}, fmt.Errorf("key %q is in no folder of records", key)
		}
	}
	prefixes, err := subnet.ParseKey(name)
	if err != nil {
		return subnet.Record{}, err
	}
	if len(text) > maxValue {
		return subnet.Record{}, fmt.Errorf("value of %d bytes, more than %d", len(text), maxValue)
	}
	var v value
	if err := json.Unmarshal(text, &v); err != nil {
		return subnet.Record{}, fmt.Errorf("value is not the JSON of a record: %w", err)
	}
	if err := v.check(); err != nil {
		return subnet.Record{}, err
	}
	r.Identity, r.Host = v.Identity, subnet.HostName(v.Host)
	for _, p := range prefixes {
		l, err := v.lease(p)
		if err != nil {
			return subnet.Record{}, err
		}
		r.Leases = append(r.Leases, l)
	}
	return r, nil
}

func (v value) lease(p netip.Prefix) (subnet.Lease, error) {
	l := subnet.Lease{Subnet: p, Attrs: subnet.Attrs{BackendType: strings.ToLower(v.BackendType)}}
	if l.BackendType == "" {
		l.BackendType = subnet.UDP
	}
	name, text, data := "PublicIP", v.PublicIP, v.BackendData
	if l.BackendType == subnet.UDP {
		data = v.UDPData
	}
	if !p.Addr().Is4() {
		name, text, data = "PublicIPv6", "", v.BackendV6Data
		if v.PublicIPv6 != nil {
			text = *v.PublicIPv6
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("%s is %.80q, want an address", name, text)
	}
	if err := subnet.CheckPublicIP(a, p); err != nil {
		return subnet.Lease{}, fmt.Errorf("%s %s: %w", name, a, err)
	}
	l.PublicIP = a
	// The address beside it is a help, not a condition: a wrong one counts as none.
	other, offers := v.Underlay, v.Offers
	if !p.Addr().Is4() {
		other, offers = v.UnderlayV6, v.OffersV6
	}
	l.Offers = subnet.ReadOffers(offers)
	if u, err := netip.ParseAddr(other); err == nil && subnet.CheckPublicIP(u, p) == nil {
		l.Underlay = u
	}
	if len(data) > 0 && string(data) != "null" {
		var b bytes.Buffer
		if err := json.Compact(&b, data); err != nil {
			return subnet.Lease{}, fmt.Errorf("backend data: %w", err)
		}
		l.BackendData = b.String()
	}
	return l, nil
}

// textOf returns the text of an address, empty for none.
func textOf(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
