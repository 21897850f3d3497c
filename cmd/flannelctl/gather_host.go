package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"flanneld/doctor"
)

// readRoutes reads the main table. Without iproute2 there are none.
func readRoutes(ctx context.Context) (out []doctor.Route) {
	for _, family := range []string{"-4", "-6"} {
		text, err := exec.CommandContext(ctx, "ip", "-j", family, "route", "show").Output()
		var routes []struct {
			Dst, Gateway, Dev, Protocol string
		}
		if err != nil || json.Unmarshal(text, &routes) != nil {
			continue
		}
		for _, r := range routes {
			if p, err := parsePrefix(r.Dst); err == nil {
				out = append(out, doctor.Route{Dst: p, Gateway: r.Gateway, Dev: r.Dev, Protocol: r.Protocol})
			}
		}
	}
	return out
}

// parsePrefix reads a destination, where an address alone stands for the whole of it.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// listings are commands that print rules. Those of legacy iptables are run only where their table exists: looking
// makes it.
var listings = []struct{ program, table, names, command string }{
	{"iptables-nft", "filter", "", "iptables-nft -S"},
	{"iptables-legacy", "filter", "/proc/net/ip_tables_names", "iptables-legacy -S"},
	{"iptables-nft", "raw", "", "iptables-nft -t raw -S PREROUTING"},
	{"iptables-legacy", "raw", "/proc/net/ip_tables_names", "iptables-legacy -t raw -S PREROUTING"},
	{"ip6tables-nft", "raw", "", "ip6tables-nft -t raw -S PREROUTING"},
	{"nft", "raw", "", "nft list table ip docker-bridges"},
	{"nft", "raw", "", "nft list table ip6 docker-bridges"},
}

func readRules(ctx context.Context) (out []doctor.Rules) {
	for _, l := range listings {
		if l.names != "" {
			if names, err := os.ReadFile(l.names); err != nil || !strings.Contains(string(names), l.table) {
				continue
			}
		}
		words := strings.Fields(l.command)
		if text, err := exec.CommandContext(ctx, words[0], words[1:]...).Output(); err == nil {
			out = append(out, doctor.Rules{Program: l.program, Table: l.table, Text: string(text)})
		}
	}
	return out
}

// readSysctls reads the numbers that the checks look at.
func readSysctls(f *doctor.Facts) map[string]int {
	keys := []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter",
		"net/ipv4/neigh/default/gc_thresh3",
		"net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max",
	}
	for _, name := range f.Forwarders() {
		keys = append(keys, "net/ipv4/conf/"+name+"/forwarding", "net/ipv4/conf/"+name+"/rp_filter")
	}
	out := map[string]int{}
	for _, key := range keys {
		text, err := os.ReadFile(filepath.Join("/proc/sys", key))
		if err != nil {
			continue
		}
		if v, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			out[key] = v
		}
	}
	return out
}

func readChecksums() (out []doctor.Checksums) {
	text, err := os.ReadFile("/proc/self/net/snmp")
	if err != nil {
		return nil
	}
	for _, proto := range []string{"Udp", "Tcp"} {
		v := snmp(string(text), proto)
		out = append(out, doctor.Checksums{Protocol: proto, In: v["InDatagrams"] + v["InSegs"], Bad: v["InCsumErrors"]})
	}
	return out
}

// snmp reads the counters of one protocol: a line of names and a line of values. The daemon links a library for that,
// but this program, which must stay small, does not.
func snmp(text, proto string) map[string]int {
	out := map[string]int{}
	var names []string
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, proto+": ")
		if !ok {
			continue
		}
		cells := strings.Fields(rest)
		if names == nil {
			names = cells
			continue
		}
		for i, c := range cells[:min(len(cells), len(names))] {
			out[names[i]], _ = strconv.Atoi(c) // the kernel writes numbers
		}
	}
	return out
}

// readClocks asks the first endpoint that tells its time.
func readClocks(ctx context.Context, endpoints []string) []doctor.Clock {
	for _, endpoint := range endpoints {
		if date, err := httpDate(ctx, endpoint); err == nil {
			return []doctor.Clock{{Endpoint: endpoint, Behind: time.Since(date)}}
		}
	}
	return nil
}

// httpDate asks a server for its time. Nothing is believed but the time, so its certificate does not matter.
func httpDate(ctx context.Context, endpoint string) (time.Time, error) {
	if !strings.HasPrefix(endpoint, "http") {
		return time.Time{}, errors.New("no HTTP endpoint")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(endpoint, "/")+"/version", nil)
	if err != nil {
		return time.Time{}, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := c.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	_ = res.Body.Close() // the header is all that is wanted
	return http.ParseTime(res.Header.Get("Date"))
}
