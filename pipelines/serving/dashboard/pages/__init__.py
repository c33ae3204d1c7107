"""The dashboard's pages, one a file. Each registers its address with NiceGUI when it is given the dashboard."""
