package main

var CheckAnnotations = checkAnnotations
