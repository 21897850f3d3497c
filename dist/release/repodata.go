package main

import "encoding/xml"

// repoSpace begins the XML namespaces of a repository's lists.
const repoSpace = "http://linux.duke.edu/metadata/"

// repomd is the list of lists.
type repomd struct {
	XMLName  xml.Name     `xml:"repomd"`
	Space    string       `xml:"xmlns,attr"`
	RPM      string       `xml:"xmlns:rpm,attr"`
	Revision int64        `xml:"revision"`
	Data     []repomdData `xml:"data"`
}

type repomdData struct {
	Type      string   `xml:"type,attr"`
	Checksum  checksum `xml:"checksum"`
	Open      checksum `xml:"open-checksum"` // of what is compressed
	Location  location `xml:"location"`
	Timestamp int64    `xml:"timestamp"`
	Size      int      `xml:"size"`
	OpenSize  int      `xml:"open-size"`
}

type checksum struct {
	Type string `xml:"type,attr"`
	ID   string `xml:"pkgid,attr,omitempty"` // YES: it is how the other lists name the package
	Sum  string `xml:",chardata"`
}

type location struct {
	Href string `xml:"href,attr"`
}

// yumList is one list with its name.
type yumList struct {
	name string
	list any
}

// all returns the lists as they are written.
func (l yumLists) all() []yumList {
	type list[P any] struct {
		XMLName  xml.Name
		Space    string `xml:"xmlns,attr"`
		RPM      string `xml:"xmlns:rpm,attr,omitempty"`
		Count    int    `xml:"packages,attr"`
		Packages []P    `xml:"package"`
	}
	n := len(l.primary)
	return []yumList{
		{"primary", list[primary]{element("metadata"), repoSpace + "common", repoSpace + "rpm", n, l.primary}},
		{"filelists", list[filelist]{element("filelists"), repoSpace + "filelists", "", n, l.filelists}},
		{"other", list[described]{element("otherdata"), repoSpace + "other", "", n, l.other}},
	}
}

func element(local string) xml.Name { return xml.Name{Local: local} }

// primary is a package in the primary list.
type primary struct {
	Type        string   `xml:"type,attr"`
	Name        string   `xml:"name"`
	Arch        string   `xml:"arch"`
	Version     evr      `xml:"version"`
	Checksum    checksum `xml:"checksum"`
	Summary     string   `xml:"summary"`
	Description string   `xml:"description"`
	Packager    string   `xml:"packager"`
	URL         string   `xml:"url"`
	Time        times    `xml:"time"`
	Size        sizes    `xml:"size"`
	Location    location `xml:"location"`
	Format      format   `xml:"format"`
}

type evr struct {
	Epoch   int    `xml:"epoch,attr"`
	Version string `xml:"ver,attr"`
	Release string `xml:"rel,attr"`
}

type times struct {
	File  int64 `xml:"file,attr"`
	Build int64 `xml:"build,attr"`
}

type sizes struct {
	Package   int    `xml:"package,attr"`
	Installed uint64 `xml:"installed,attr"`
	Archive   uint64 `xml:"archive,attr"`
}

type format struct {
	License    string      `xml:"rpm:license"`
	Vendor     string      `xml:"rpm:vendor"`
	Group      string      `xml:"rpm:group"`
	BuildHost  string      `xml:"rpm:buildhost"`
	SourceRPM  string      `xml:"rpm:sourcerpm"`
	Header     byteRange   `xml:"rpm:header-range"`
	Provides   *relations  `xml:"rpm:provides"`
	Requires   *relations  `xml:"rpm:requires"`
	Recommends *relations  `xml:"rpm:recommends"`
	Files      []fileEntry `xml:"file"`
}

type byteRange struct {
	Start int `xml:"start,attr"`
	End   int `xml:"end,attr"`
}

type relations struct {
	Entries []relation `xml:"rpm:entry"`
}

type relation struct {
	Name    string `xml:"name,attr"`
	Flags   string `xml:"flags,attr,omitempty"`
	Epoch   *int   `xml:"epoch,attr"`
	Version string `xml:"ver,attr,omitempty"`
	Release string `xml:"rel,attr,omitempty"`
}

type fileEntry struct {
	Type string `xml:"type,attr,omitempty"`
	Path string `xml:",chardata"`
}

// described is a package in the other lists.
type described struct {
	ID      string `xml:"pkgid,attr"`
	Name    string `xml:"name,attr"`
	Arch    string `xml:"arch,attr"`
	Version evr    `xml:"version"`
}

type filelist struct {
	described
	Files []fileEntry `xml:"file"`
}
