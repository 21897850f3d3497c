package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	flannelctl "flanneld/cmd/flannelctl"
	"flanneld/subnet"
)

// clock returns the URL of a server whose clock is off.
func clock(t *testing.T, off time.Duration) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestChecks(t *testing.T) {
	tests := []struct {
		name, check string
		in          flannelctl.Case
		result      string
		says        string
	}{
		{"the clocks agree", "clock", flannelctl.Case{Endpoint: clock(t, 0)}, "ok", "within"},
		{"the clock of the store is ahead", "clock", flannelctl.Case{Endpoint: clock(t, time.Hour)}, "failure", "differs"},
		{"the clock of the store is behind", "clock", flannelctl.Case{Endpoint: clock(t, -time.Hour)}, "failure", "1h0m"},
		{"a store that tells no time", "clock", flannelctl.Case{Endpoint: "unix:///nowhere"}, "skipped", ""},
		{"all run one version", "versions", flannelctl.Case{Versions: map[string]string{"10.5.2.0/24": "v2"}}, "ok", "v2"},
		{"a host is behind", "versions", flannelctl.Case{Versions: map[string]string{"10.5.2.0/24": "v1", "10.5.3.0/24": "v2"}}, "warning", "10.5.2.0/24"},
		{"docker has the host's subnet", "bridge", flannelctl.Case{Bridges: map[string][]string{"docker0": {"10.5.1.1/24"}}}, "ok", "docker0"},
		{"docker has the subnet of earlier", "bridge", flannelctl.Case{Bridges: map[string][]string{"docker0": {"10.5.7.1/24"}}}, "failure", "10.5.7.1/24"},
		{"docker has a range of its own", "bridge", flannelctl.Case{Bridges: map[string][]string{"docker0": {"172.17.0.1/16"}}}, "ok", "no bridge"},
		{"a VPN covers the network", "overlap", flannelctl.Case{Routes: map[string]string{"10.0.0.0/8": "192.0.2.1"}}, "failure", "10.0.0.0/8"},
		{"a default route covers everything", "overlap", flannelctl.Case{Routes: map[string]string{"0.0.0.0/0": "192.0.2.1"}}, "ok", ""},
	}
	if _, err := os.Stat("/proc/sys/net/ipv4/neigh/default/gc_thresh3"); err == nil {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.check, last.in, last.result, last.says = "more peers than neighbours", "neighbour-table", flannelctl.Case{Peers: 1 << 24}, "failure", "at most"
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result, evidence := flannelctl.Diagnosis(t.Context(), tt.check, tt.in)
			if result != tt.result || !strings.Contains(evidence, tt.says) {
				t.Errorf("%s is %s (%s), want %s and %q", tt.check, result, evidence, tt.result, tt.says)
			}
		})
	}
}

func TestCountersOfTheKernelAreRead(t *testing.T) {
	const text = "Tcp: InSegs InCsumErrors\nTcp: 7 2\nUdp: InDatagrams InErrors InCsumErrors\nUdp: 5 1 3\nUdpLite: InDatagrams InErrors InCsumErrors\nUdpLite: 9 9 9\n"
	if v := flannelctl.SNMP(text, "Udp"); v["InDatagrams"] != 5 || v["InCsumErrors"] != 3 {
		t.Errorf("the counters of UDP are %v", v)
	}
}

func TestLeasesWithoutAPlaceAreNamed(t *testing.T) {
	record := func(prefix, backend string) subnet.Entry {
		p, err := flannelctl.ParseSubnets(prefix)
		if err != nil {
			t.Fatal(err)
		}
		r := subnet.Record{Host: prefix}
		for _, one := range p {
			r.Leases = append(r.Leases, subnet.Lease{Subnet: one, Attrs: subnet.Attrs{BackendType: backend}})
		}
		return subnet.Entry{Record: r, LeaseID: 1}
	}
	tests := []struct{ name, config, prefix, backend, want string }{
		{"it fits", `{"Network":"10.5.0.0/16"}`, "10.5.1.0/24", "udp", ""},
		{"outside the range", `{"Network":"10.6.0.0/16"}`, "10.5.1.0/24", "udp", "no /24 inside"},
		{"another length", `{"Network":"10.5.0.0/16","SubnetLen":25}`, "10.5.1.0/24", "udp", "no /25 inside"},
		{"another backend", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, "10.5.1.0/24", "udp", "its backend is udp"},
		{"a family that is off", `{"Network":"10.5.0.0/16"}`, "10.5.1.0/24,fd00:5:0:1::/64", "udp", "not enabled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := subnet.ParseConfig([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(flannelctl.Orphans(c, []*subnet.Entry{new(record(tt.prefix, tt.backend))}), "; ")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("orphans are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAReservationThatItsHostHasNotTakenIsNoFault(t *testing.T) {
	for _, tt := range []struct {
		record api.Record
		want   string
	}{
		{api.Record{Reservation: true, Skipped: "no VtepMAC"}, "not taken yet"},
		{api.Record{Reservation: true, Identity: "x", Skipped: "no VtepMAC"}, "no VtepMAC"},
		{api.Record{Reservation: true, Identity: "x", Own: true}, "this host"},
		{api.Record{Skipped: "no VtepMAC"}, "no VtepMAC"},
	} {
		if got := flannelctl.RemarkOn(tt.record); got != tt.want {
			t.Errorf("the remark on %+v is %q, want %q", tt.record, got, tt.want)
		}
	}
}

func TestTheStateIsTheExitCode(t *testing.T) {
	for _, tt := range []struct {
		status api.Status
		want   int
	}{
		{api.Status{State: api.StateReady, Ready: true}, 0},
		{api.Status{State: api.StateDegraded, Ready: true}, 5},
		{api.Status{State: api.StateNotReady}, 3},
		{api.Status{Ready: true}, 0}, // an earlier daemon
		{api.Status{}, 3},
	} {
		if got := flannelctl.StateError(tt.status); got != tt.want {
			t.Errorf("status of %+v exits with %d, want %d", tt.status, got, tt.want)
		}
	}
}

func TestAPeerThatLosesPacketsIsNotReached(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer api.Peer
		want bool
	}{
		{"installed, not probed", api.Peer{Programmed: true}, false},
		{"not installed", api.Peer{}, true},
		{"answers", api.Peer{Programmed: true, Probe: &api.Probe{Sent: 3, Lost: 1}}, false},
		{"does not answer", api.Peer{Programmed: true, Probe: &api.Probe{Sent: 3, Lost: 3}}, true},
		{"one way", api.Peer{Programmed: true, Probe: &api.Probe{Sent: 3, OneWay: true}}, true},
		{"its daemon is dead", api.Peer{Programmed: true, Probe: &api.Probe{Sent: 3, Refused: 3}}, false},
	} {
		if got := flannelctl.Unreached(tt.peer); got != tt.want {
			t.Errorf("a peer that is %s: unreached is %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestSubnetsOfTheCommandLine(t *testing.T) {
	for text, want := range map[string]string{
		"10.5.1.0/24": "[10.5.1.0/24]", "10.5.1.0-24": "[10.5.1.0/24]", "subnets/10.5.1.0-24": "[10.5.1.0/24]",
		"fd00::/64, 10.5.1.0/24": "[10.5.1.0/24 fd00::/64]", "10.5.1.1/24": "host bits", "nonsense": "no subnet", "10.5.1.0/24,10.5.2.0/24": "want one subnet",
	} {
		p, err := flannelctl.ParseSubnets(text)
		got := fmt.Sprint(p)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("ParseSubnets(%q) = %s, want %s", text, got, want)
		}
	}
}
