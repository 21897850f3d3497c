package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	flannelctl "flanneld/cmd/flannelctl"
)

func TestCountersOfTheKernelAreRead(t *testing.T) {
	const text = "Tcp: InSegs InCsumErrors\nTcp: 7 2\nUdp: InDatagrams InErrors InCsumErrors\nUdp: 5 1 3\n" +
		"UdpLite: InDatagrams InErrors InCsumErrors\nUdpLite: 9 9 9\n"
	if v := flannelctl.SNMP(text, "Udp"); v["InDatagrams"] != 5 || v["InCsumErrors"] != 3 {
		t.Errorf("the counters of UDP are %v", v)
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

func TestARecordIsSinceARevisionOfEtcdOrSinceATimeOfItsNode(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, tt := range []struct {
		record api.Record
		want   string
	}{
		{api.Record{Created: 77}, "77"},
		{api.Record{Since: &at}, at.Local().Format("2006-01-02 15:04:05 MST")},
		{api.Record{}, ""}, // a node that the API server does not have
	} {
		if got := flannelctl.SinceOf(tt.record); got != tt.want {
			t.Errorf("%+v is since %q, want %q", tt.record, got, tt.want)
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
		"fd00::/64, 10.5.1.0/24": "[10.5.1.0/24 fd00::/64]", "10.5.1.1/24": "host bits", "nonsense": "no subnet",
		"10.5.1.0/24,10.5.2.0/24": "want one subnet",
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

func TestLeasesAreSortedByNumberAndShowWhenTheyExpire(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	records := []api.Record{
		{Key: "subnets/nonsense"}, record("10.5.100.0/24"), record("10.5.20.0/24"), record("10.5.3.0/24"),
		record("fd00::/64"),
	}
	records[2].Expires, records[3].Reservation = &at, true
	flannelctl.SortRecords(records)
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%v %s", r.Subnets, flannelctl.ExpiryOf(r)))
	}
	want := []string{
		"[10.5.3.0/24] never", "[10.5.20.0/24] " + at.Local().Format("2006-01-02 15:04:05 MST"), "[10.5.100.0/24] ",
		"[fd00::/64] ", "[] ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func record(prefix string) api.Record {
	return api.Record{Subnets: []netip.Prefix{netip.MustParsePrefix(prefix)}}
}
