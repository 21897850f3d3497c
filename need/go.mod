module flanneld/need

go 1.26.0
