module example.org/market

go 1.18
