package options

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"flanneld/redact"
)

// address reads an address of either family; the empty text is none.
func address(p *netip.Addr) value[netip.Addr] {
	return value[netip.Addr]{p: p, show: showAddr, parse: func(s string) (netip.Addr, error) {
		if s == "" {
			return netip.Addr{}, nil
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return netip.Addr{}, errors.New("want an IP address such as 192.0.2.1 or 2001:db8::1")
		}
		return a.Unmap(), nil
	}}
}

// publicAddress reads an address of one family that a peer could send to; the empty text is none.
func publicAddress(p *netip.Addr, is4 bool) value[netip.Addr] {
	v := address(p)
	either := v.parse
	v.parse = func(s string) (netip.Addr, error) {
		a, err := either(s)
		if err == nil && !a.IsValid() {
			return a, nil
		}
		if is4 && (err != nil || !a.Is4() || a.IsLoopback()) {
			return a, errors.New("want an IPv4 address such as 192.0.2.1 that peers can send to")
		}
		if !is4 && (err != nil || !a.Is6() || !a.IsGlobalUnicast()) {
			return a, errors.New("want an IPv6 address such as 2001:db8::1 that peers can send to")
		}
		return a, nil
	}
	return v
}

// listenAddress reads an address to listen on; the empty text is all of IPv4, as ever.
func listenAddress(p *netip.Addr) value[netip.Addr] {
	return value[netip.Addr]{p: p, show: showAddr, parse: func(s string) (netip.Addr, error) {
		if s == "" {
			return netip.IPv4Unspecified(), nil
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsMulticast() {
			return a, errors.New("want an IP address such as ::, 0.0.0.0 or 127.0.0.1")
		}
		return a, nil
	}}
}

func addrPort(p *netip.AddrPort) value[netip.AddrPort] {
	return value[netip.AddrPort]{p: p, show: netip.AddrPort.String, parse: func(s string) (netip.AddrPort, error) {
		a, err := netip.ParseAddrPort(s)
		if err != nil || a.Port() == 0 || a.Addr().IsMulticast() {
			return a, errors.New("want an IP address and a port such as 127.0.0.1:2379 or [::1]:2379")
		}
		return a, nil
	}}
}

// endpoints reads comma-separated URLs. A user and password in them, which etcd does not look at, are not shown.
func endpoints(p *[]string) value[[]string] {
	show := func(urls []string) string {
		shown := make([]string, len(urls))
		for i, u := range urls {
			shown[i] = WithoutUser(u)
		}
		return strings.Join(shown, ",")
	}
	return value[[]string]{p: p, show: show, hidden: true, parse: func(s string) ([]string, error) {
		urls := elements(s)
		var errs []error
		for _, u := range urls {
			if !isEndpoint(u) {
				errs = append(errs, fmt.Errorf("want http://HOST:PORT or https://HOST:PORT, not %q", WithoutUser(u)))
			}
		}
		if len(urls) == 0 {
			errs = append(errs, errors.New("want one URL such as http://192.0.2.1:2379, or several with commas in between"))
		}
		return urls, errors.Join(errs...)
	}}
}

// server is a URL, whose user and password are not shown.
func server(p *string) value[string] {
	v := text(p)
	v.show = WithoutUser
	return v
}

// isEndpoint reports whether etcd's client could connect to the endpoint: a URL of one of its schemes, or HOST:PORT.
func isEndpoint(s string) bool {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "http", s
	}
	switch scheme {
	case "unix", "unixs":
		return rest != ""
	case "http", "https":
	default:
		return false
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	host, port, err := net.SplitHostPort(strings.TrimRight(rest, "/"))
	if err != nil || host == "" || strings.ContainsAny(host, "/? ") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// WithoutUser returns a URL as it may be shown: without a user and password.
func WithoutUser(endpoint string) string {
	scheme, user, rest := splitUser(endpoint)
	if user == "" {
		return endpoint
	}
	return scheme + redact.Mark + "@" + rest
}

// splitUser takes a URL apart; user ends with the last at sign of the URL, because a password may have one.
func splitUser(endpoint string) (scheme, user, rest string) {
	if before, after, ok := strings.Cut(endpoint, "://"); ok {
		scheme, endpoint = before+"://", after
	}
	if at := strings.LastIndexByte(endpoint, '@'); at >= 0 && !strings.HasPrefix(scheme, "unix") {
		return scheme, endpoint[:at+1], endpoint[at+1:]
	}
	return scheme, "", endpoint
}

// dropUsers removes users and passwords from the URLs, which etcd does not look at, and returns those URLs as they may
// be shown.
func (o *Options) dropUsers() (had []string) {
	for i, e := range o.EtcdEndpoints {
		if scheme, user, rest := splitUser(e); user != "" {
			o.EtcdEndpoints[i], had = scheme+rest, append(had, scheme+redact.Mark+"@"+rest)
		}
	}
	return had
}
