"""This folder is `doctor`: does everything that the service needs hold? One check, one finding, one mend."""
